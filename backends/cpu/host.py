"""What this machine is, and the machines that have a name: processor, features, cores, caches.

Everything is read once per process.  llvmlite is imported where it is asked for the processor.
"""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from ...ir.errors import UnsupportedError
from ..llvm.compile import CodegenTarget

_AMX_CPUS = ("sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d", "diamondrapids")
_AVX512 = ("avx512", "avx10", "amx-", "evex512")
_AVX = (*_AVX512, "avx", "fma", "f16c", "xop", "vaes", "vpclmulqdq")

MASKS: dict[str, tuple[str, ...]] = {
    "avx512": ("amx-",),
    "avx2": _AVX512,
    "sse4.2": _AVX,
}
"""Prefixes of the features that a mask forbids; the mask is named after the best it leaves."""

NAMED: dict[str, tuple[str, str]] = {
    "x86_64-linux": ("x86_64-unknown-linux-gnu", "x86-64"),
    "x86_64-linux-v2": ("x86_64-unknown-linux-gnu", "x86-64-v2"),
    "x86_64-linux-v3": ("x86_64-unknown-linux-gnu", "x86-64-v3"),
    "x86_64-linux-v4": ("x86_64-unknown-linux-gnu", "x86-64-v4"),
    "aarch64-linux": ("aarch64-unknown-linux-gnu", "generic"),
}
"""Triple and processor of the targets without a processor in their name."""


@dataclass(frozen=True)
class Caches:
    """Bytes of the data caches that one core sees, and of a cache line."""

    l1d: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 8 << 20
    line: int = 64


@dataclass(frozen=True)
class Host:
    """This machine.  `features` are those present; `feature_string` is LLVM's full list."""

    triple: str
    cpu: str
    features: frozenset[str]
    feature_string: str
    cores: int
    caches: Caches

    def has(self, feature: str) -> bool:
        """Whether processor and system offer a feature, by LLVM's name ("avx512vnni")."""
        return feature in self.features

    @property
    def arch(self) -> str:
        """The first part of the triple."""
        return self.triple.split("-", 1)[0]

    @property
    def vector_bits(self) -> int:
        """Width of the widest vector register that ordinary arithmetic should use."""
        return vector_bits(self.features)


def vector_bits(features: frozenset[str]) -> int:
    """512, 256 or 128, from the features of an x86-64 or aarch64 processor."""
    if "avx512f" in features:
        return 512
    return 256 if "avx" in features else 128


@functools.cache
def host() -> Host:
    """This machine, read once."""
    import llvmlite.binding as llvm

    found = dict(llvm.get_host_cpu_features())
    features = frozenset(name for name, present in found.items() if present)
    return Host(
        triple=llvm.get_process_triple(),
        cpu=_cpu_name(llvm.get_host_cpu_name(), features),
        features=features,
        feature_string=_flatten({name: name in features for name in found}),
        cores=cores_allowed(),
        caches=read_caches(),
    )


def _cpu_name(name: str, features: frozenset[str]) -> str:
    """LLVM's name unless the features contradict it: it takes some AMX servers for desktops."""
    if "amx-tile" in features and name not in _AMX_CPUS:
        return "sapphirerapids"
    return name


def _flatten(features: dict[str, bool]) -> str:
    return ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))


def cores_allowed() -> int:
    """Cores that this process may keep busy: its affinity, bounded by its control group's quota."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = _cgroup_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    return max(1, min(cores, int(quota))) if quota else cores


def _cgroup_quota(root: Path, membership: Path) -> float | None:
    """Cores that the control group grants, None without limit.

    The least cpu.max from our own group up to `root` holds; version 1 has one file.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    found = []
    folder = root / own
    while True:
        found.append(_read_quota(folder))
        if folder == root or root not in folder.parents:
            break
        folder = folder.parent
    found.append(_read_quota_v1(root / "cpu"))
    return min((quota for quota in found if quota), default=None)


def _read_quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _read_quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None


def read_caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> Caches:
    """The caches of the first core as Linux tells them; usual sizes for what it does not tell."""
    sizes: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            if (index / "type").read_text().strip() == "Instruction":
                continue
            level = (index / "level").read_text().strip()
            sizes["l1d" if level == "1" else f"l{level}"] = _bytes((index / "size").read_text())
            sizes["line"] = int((index / "coherency_line_size").read_text())
        except (OSError, ValueError):
            continue
    known = {name: size for name, size in sizes.items() if name in Caches.__dataclass_fields__}
    return Caches(**known)


def _bytes(text: str) -> int:
    """The size that sysfs writes as 32K."""
    text = text.strip()
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
    return int(text.rstrip("KMG")) * scale


def codegen_target(features_mask: str | None = None) -> CodegenTarget:
    """This machine for LLVM; `features_mask`, a key of `MASKS`, forbids whatever is above it."""
    machine = host()
    names = {item[1:]: item[0] == "+" for item in machine.feature_string.split(",") if item}
    if features_mask is not None:
        forbidden = _forbidden(features_mask)
        names = {name: on and not name.startswith(forbidden) for name, on in names.items()}
    return CodegenTarget(machine.triple, machine.cpu, _flatten(names))


def _forbidden(mask: str) -> tuple[str, ...]:
    if mask not in MASKS:
        raise UnsupportedError(
            "E0494", f"unknown feature mask '{mask}'", hint=f"one of {', '.join(MASKS)}"
        )
    return MASKS[mask]


def present_features(target: CodegenTarget) -> frozenset[str]:
    """The features that a target's list switches on."""
    return frozenset(item[1:] for item in target.features.split(",") if item.startswith("+"))


def named_target(name: str) -> CodegenTarget:
    """The target of a name: "cpu" (this machine), "x86_64-linux-v3", "aarch64-linux-cortex-a72".

    Errors: E0401 for other names; a processor that LLVM does not know is E0492 on compilation.
    """
    if name == "cpu":
        return codegen_target()
    if name in NAMED:
        triple, cpu = NAMED[name]
        return CodegenTarget(triple, cpu)
    for stem in ("x86_64-linux", "aarch64-linux"):
        if name.startswith(stem + "-") and len(name) > len(stem) + 1:
            return CodegenTarget(NAMED[stem][0], name[len(stem) + 1 :])
    raise UnsupportedError(
        "E0401",
        f"unknown target '{name}'",
        details=(f"this machine is {platform.machine()}-{platform.system().lower()}",),
        hint=f"one of cpu, {', '.join(NAMED)}, or one of these and -CPU, LLVM's processor name",
    )
