"""`irc env`: the facts a bug report needs.

Versions come from package metadata, so nothing heavy is imported; only LLVM is asked for its own.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import click

from .. import __version__
from ..backends.llvm.cache import cache_dir
from ..backends.llvm.version import llvm_version
from .main import COMMANDS, group
from .options import json_flag, verbosity
from .settings import check_tables, defaults, read_settings, settings_file
from .tables import show_json

DISTRIBUTION = "tensor-irc"
CPU_FLAGS = (
    "sse4_2 avx avx2 fma f16c avx512f avx512bw avx512vl avx512_vnni avx_vnni avx512_bf16"
    " avx512_fp16 amx_tile amx_int8 amx_bf16 asimd asimddp asimdhp i8mm bf16 sve sve2"
).split()


@click.command()
@json_flag
@verbosity
def command(as_json: bool) -> None:
    """Print versions, machine and installed extras; paste it into a bug report."""
    facts = environment()
    if as_json:
        show_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{name:<12}{_plain(value)}")


def environment() -> dict[str, object]:
    """The block as a dict of strings, numbers and dicts of strings."""
    return {
        "irc": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpu flags": _cpu_flags(),
        "cores": f"{_allowed_cores()} allowed of {os.cpu_count()}",
        "llvm": _llvm(),
        "cache": str(cache_dir()),
        "irc.toml": _settings(),
        "settings": {k: v for k, v in sorted(os.environ.items()) if k.startswith("IRC_")},
        "packages": _packages(),
        "extras": _extras(),
    }


def _settings() -> str:
    """The file that gives defaults here; every one of its tables is checked."""
    path = settings_file()
    if path is None:
        return ""
    tables = read_settings(path)
    check_tables(path, tables, COMMANDS)
    with click.Context(group) as context:
        for name, table in tables.items():
            found = group.get_command(context, name)
            assert found is not None
            defaults(path, found, name, table)
    return str(path)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items()) or "none"
    return str(value) or "none"


def _cpu_fields(key: str) -> str:
    """The first value of a key of the kernel's processor table; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _cpu_name() -> str:
    return _cpu_fields("model name") or platform.processor() or "unknown"


def _cpu_flags() -> str:
    present = set((_cpu_fields("flags") or _cpu_fields("Features")).split())
    return " ".join(flag for flag in CPU_FLAGS if flag in present)


def _allowed_cores() -> int:
    """Cores this process may run on, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _llvm() -> str:
    try:
        return llvm_version()
    except (ImportError, OSError) as error:
        return f"missing ({error})"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _requirements() -> list[tuple[str, str]]:
    """Pairs (extra or empty, distribution) from our own metadata."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    pairs = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        name = requirement.strip()
        end = next((i for i, c in enumerate(name) if not (c.isalnum() or c in "-_.")), len(name))
        extra = marker.partition("extra ==")[2].strip().strip("\"'")
        pairs.append((extra, name[:end]))
    return pairs


def _packages() -> dict[str, str]:
    return {name: _version(name) or "missing" for extra, name in _requirements() if not extra}


def _extras() -> dict[str, str]:
    """Per extra: yes, no, or the packages of it that are there."""
    groups: dict[str, list[str]] = {}
    for extra, name in _requirements():
        if extra:
            groups.setdefault(extra, []).append(name)
    return {extra: _presence(names) for extra, names in groups.items()}


def _presence(names: list[str]) -> str:
    found = [name for name in names if _version(name)]
    if len(found) == len(names):
        return "yes"
    return f"partly ({' '.join(found)})" if found else "no"
