"""Passes and their text form: `canonicalize,cse,fuse{max=8}` to a list of passes, and back.

A pass is a frozen dataclass; its fields are its options.  A subclass registers itself under `name`,
or under its class name in kebab case.  Imports: the core, errors.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, ClassVar, get_args, get_type_hints

from ..ir.errors import Error
from ..ir.ops.core import Module
from ..ir.spelling import suggestion

PASSES: dict[str, type[Pass]] = {}


@dataclasses.dataclass(frozen=True)
class Pass:
    """One change to a module.  Subclass it as a frozen dataclass with defaults for all fields."""

    name: ClassVar[str] = ""

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
        assert cls.name not in PASSES, f"two passes are called {cls.name}"
        PASSES[cls.name] = cls

    def run(self, module: Module) -> Module:
        """The changed module; it may be `module` itself, changed in place."""
        raise AssertionError(f"the pass {self.name} does not say what it does")

    def __str__(self) -> str:
        """The text that `parse_pipeline` reads back: options that differ from their defaults."""
        given = [(f.name, getattr(self, f.name)) for f in options_of(type(self))]
        shown = [f"{key}={_text(v)}" for key, v in given if v != default_of(type(self), key)]
        return self.name + ("{" + " ".join(shown) + "}" if shown else "")


def options_of(cls: type[Pass]) -> list[dataclasses.Field[Any]]:
    """The fields that can be written in text (those whose metadata does not say `hidden`)."""
    return [f for f in dataclasses.fields(cls) if f.init and not f.metadata.get("hidden")]


def default_of(cls: type[Pass], key: str) -> Any:
    """The default of an option."""
    (found,) = [f for f in dataclasses.fields(cls) if f.name == key]
    if found.default is not dataclasses.MISSING:
        return found.default
    return found.default_factory() if found.default_factory is not dataclasses.MISSING else None


def hidden(default: Any) -> Any:
    """A field that is no text option: a target, a table."""
    return dataclasses.field(default=default, metadata={"hidden": True})


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "+".join([_text(v) for v in value])
    return str(value)


_ITEM = re.compile(r"\s*([A-Za-z][\w-]*)\s*(?:\{([^{}]*)\})?\s*")


def parse_pipeline(text: str) -> list[Pass]:
    """The passes that `text` names; E0220 for malformed text, an unknown pass, option or value."""
    found: list[Pass] = []
    at = 0
    while at < len(text):
        match = _ITEM.match(text, at)
        end = match.end() if match else at
        if match is None or (end < len(text) and text[end] != ","):
            raise Error(
                "E0220",
                f"cannot read the passes '{text}'",
                details=(f"stopped at '{text[end:]}'",),
                hint="canonicalize,cse,fuse{max=8}",
            )
        found.append(make_pass(match.group(1), match.group(2) or ""))
        at = end + 1
    return found


def make_pass(name: str, options: str = "") -> Pass:
    """The pass called `name` with options `key=value key=value`."""
    cls = PASSES.get(name)
    if cls is None:
        raise Error(
            "E0220",
            f"no pass is called '{name}'",
            details=("passes: " + ", ".join(sorted(PASSES)),),
            hint=suggestion(name, PASSES),
        )
    kinds = get_type_hints(cls)
    known = [f.name for f in options_of(cls)]
    values: dict[str, Any] = {}
    for item in options.replace(",", " ").split():
        key, equals, value = item.partition("=")
        if key not in known:
            raise Error(
                "E0220",
                f"the pass '{name}' has no option '{key}'",
                details=("options: " + (", ".join(known) or "none"),),
                hint=suggestion(key, known),
            )
        values[key] = _value(name, key, kinds[key], value if equals else "true")
    return cls(**values)


def _value(name: str, key: str, kind: Any, text: str) -> Any:
    """`text` as a value of an option's type: bool, int, float, str, or several joined by +."""
    parts = get_args(kind)
    try:
        if parts and kind not in (bool, int, float, str):
            return tuple([parts[0](p) for p in text.split("+") if p])
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError) as error:
        wanted = getattr(kind, "__name__", str(kind))
        raise Error(
            "E0220", f"the pass '{name}' wants {wanted} for '{key}'", details=(f"found '{text}'",)
        ) from error


def pipeline_text(passes: list[Pass]) -> str:
    """The text of a list of passes."""
    return ",".join([str(p) for p in passes])


__all__ = [
    "PASSES",
    "Pass",
    "default_of",
    "hidden",
    "make_pass",
    "options_of",
    "parse_pipeline",
    "pipeline_text",
]
