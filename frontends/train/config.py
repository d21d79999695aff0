"""A training as a TOML file: `irc train config.toml`.

    [model]                          # one of:
    layers = ["Flatten", { Linear = [64, 128] }, "ReLU", { Linear = [128, 10] }]
    # file = "net.py"                # with name = "Net" and args = { width = 32 }
    # onnx = "model.onnx"            # imported, all its weights trained

    [data]
    train = "digits.npz"             # npz, csv, parquet, or a folder of images
    validation = "held.npz"
    x = ["x"]                        # arrays or columns; by default x, and y or target
    y = "y"
    batch = 64

    [train]
    loss = "cross_entropy"
    metrics = ["accuracy"]
    epochs = 30

    [optimizer]
    name = "adamw"
    lr = 2e-3
    weight_decay = 1e-4

    [schedule]
    name = "cosine"                  # total: all steps, unless said
    warmup = 50

    [output]
    checkpoints = "run"              # run/last and run/best
    model = "net.irc"                # .irc or .onnx
    log = "log.csv"

Paths count from the file's folder.  A table or key that is unknown is refused by name and line.
May import: ir, frontends/nn, its siblings.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import Error
from ...ir.spelling import nearest, suggestion
from .. import nn
from . import data, optim
from .callbacks import Callback, Checkpoint, CSVLog, EarlyStopping
from .losses import as_loss
from .metrics import as_metric
from .optim.names import OPTIMIZERS
from .trainer import Trainer

KEYS: dict[str, tuple[str, ...]] = {
    "model": ("layers", "file", "name", "args", "onnx"),
    "data": ("train", "validation", "x", "y", "batch", "shuffle", "drop_last", "size"),
    "train": (
        "loss", "metrics", "epochs", "seed", "precision", "accumulate", "threads",
        "activation_memory", "loss_scale", "patience",
    ),
    "optimizer": ("name", "lr", "*"),
    "schedule": ("name", "rate", "*"),
    "output": ("checkpoints", "model", "log", "step"),
}  # fmt: skip
"""Tables and their keys; "*" stands for the fields of what `name` names."""

SCHEDULES: dict[str, Callable[..., optim.Schedule]] = {
    "constant": optim.constant, "step": optim.step, "multistep": optim.multistep,
    "exponential": optim.exponential, "linear": optim.linear, "polynomial": optim.polynomial,
    "cosine": optim.cosine, "warm_restarts": optim.warm_restarts, "one_cycle": optim.one_cycle,
    "cyclic": optim.cyclic,
}  # fmt: skip


@dataclass
class Config:
    """A file's tables, with the file for messages and relative paths."""

    path: Path
    tables: dict[str, dict[str, Any]]

    def get(self, table: str, key: str, default: Any = None) -> Any:
        """One value."""
        return self.tables.get(table, {}).get(key, default)

    def place(self, name: str) -> Path:
        """A path of the file, from the file's folder."""
        return self.path.parent / name

    def mistake(
        self, table: str, key: str, what: str, known: Any = (), hint: str | None = None,
        word: str | None = None,
    ) -> Error:  # fmt: skip
        """E0650 about a key, with the line and the known name nearest to `word` (the key)."""
        if hint is None and known:
            hint = f"known: {', '.join(known)}"
        hint = suggestion(word or key, known, hint)
        line = _line(self.path, table, key)
        return Error(
            "E0650",
            f"{self.path}: [{table}] {key} {what}".replace(" []", ""),
            where=f"line {line}" if line else None,
            hint=hint,
        )


def read(path: str | Path) -> Config:
    """The file, its tables and keys checked.  E0650."""
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Error("E0650", f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Error("E0650", f"{path} is no TOML file", details=(str(error),)) from None
    config = Config(path, tables)
    for table, keys in tables.items():
        if table not in KEYS or not isinstance(keys, dict):
            near = nearest(table, KEYS)
            hint = f"did you mean [{near}]?" if near else f"tables: {', '.join(KEYS)}"
            raise Error("E0650", f"{path}: there is no table [{table}]", hint=hint)
        for key in keys:
            if key not in KEYS[table] and "*" not in KEYS[table]:
                raise config.mistake(table, key, "is no field", KEYS[table])
    for table, key in (("model", ""), ("data", "train"), ("train", "loss")):
        if table not in tables or (key and key not in tables[table]):
            raise Error("E0650", f"{path}: [{table}] {key} is missing".replace("  ", " "))
    return config


def trainer_of(config: Config, load: Callable[[str], Any]) -> tuple[Trainer, dict[str, Any]]:
    """The trainer a file describes, and the arguments of its `fit`.

    `load` reads a model file (ONNX) as a module of IR.
    """
    seed = _number(config, "train", "seed", 0)
    nn.manual_seed(seed)
    batches = dataset(config, "train")
    epochs = _number(config, "train", "epochs", 10)
    if epochs < 1:
        raise config.mistake("train", "epochs", f"must be at least 1, found {epochs}")
    steps = epochs * (batches.size or 1)
    _check_outputs(config)
    given = config.tables["train"]
    options = {
        k: given[k]
        for k in ("precision", "accumulate", "threads", "activation_memory", "loss_scale")
        if k in given
    }
    made = Trainer(
        model(config, load),
        loss=_named(config, "loss", as_loss, given["loss"]),
        metrics=[_named(config, "metrics", as_metric, m) for m in given.get("metrics", ())],
        optimizer=optimizer(config, steps),
        seed=seed,
        callbacks=callbacks(config),
        **options,
    )
    validation = dataset(config, "validation") if config.get("data", "validation") else None
    return made, {"dataset": batches, "epochs": epochs, "validation": validation}


def _named(config: Config, key: str, find: Callable[[Any], Any], name: Any) -> Any:
    """What a name of [train] stands for; E0650 with the line for one that is unknown."""
    try:
        return find(name)
    except Error as error:
        raise config.mistake("train", key, error.message, hint=error.hint) from None


def _check_outputs(config: Config) -> None:
    """E0650, before anything is trained, for a model that could not be written at the end."""
    model = config.get("output", "model")
    if model is None:
        return
    if Path(model).suffix not in (".onnx", ".irc", ".ir", ".safetensors"):
        raise config.mistake("output", "model", f"'{model}' ends in no known suffix",
                             hint=".onnx, .irc, .ir or .safetensors")  # fmt: skip
    if not config.place(model).parent.is_dir():
        folder = config.place(model).parent
        raise config.mistake("output", "model", f"names a folder that does not exist: {folder}")


def _number(config: Config, table: str, key: str, default: int) -> int:
    value = config.get(table, key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise config.mistake(table, key, f"must be a whole number, found {value!r}")
    return value


# ---------------------------------------------------------------------- the parts


def model(config: Config, load: Callable[[str], Any]) -> nn.Module:
    """The network of [model]: layers, a class or function of a Python file, or an ONNX file."""
    kinds = [k for k in ("layers", "file", "onnx") if config.get("model", k) is not None]
    if len(kinds) != 1:
        raise config.mistake("model", "", "takes layers, file or onnx, one of them")
    if kinds == ["onnx"]:
        return nn.from_ir(load(str(config.place(config.get("model", "onnx")))))
    if kinds == ["file"]:
        return _from_file(config)
    layers = config.get("model", "layers")
    if not isinstance(layers, list) or not layers:
        raise config.mistake("model", "layers", "must be a list of layers")
    return nn.Sequential(*[_layer(config, k, entry) for k, entry in enumerate(layers)])


def _layer(config: Config, number: int, entry: Any) -> nn.Module:
    """One entry: "ReLU", { Linear = [64, 10], bias = false } or
    { Conv2d = { in_channels = 1, ... } }.
    """
    pairs = list(entry.items()) if isinstance(entry, dict) else [(entry, [])]
    if not pairs or not isinstance(pairs[0][0], str):
        raise config.mistake("model", "layers", f"entry {number} is no layer: {entry!r}")
    (name, given), named = pairs[0], dict(pairs[1:])
    known = [n for n in nn.__all__ if inspect.isclass(getattr(nn, n))]
    cls = getattr(nn, name, None) if name in known else None
    if cls is None or not issubclass(cls, nn.Module):
        hint = suggestion(name, known, "a class of irc.nn")
        raise config.mistake("model", "layers", f"entry {number}: no layer '{name}'", hint=hint)
    try:
        if isinstance(given, dict):
            return cls(**given, **named)
        return cls(*(given if isinstance(given, list) else [given]), **named)
    except TypeError as error:
        raise config.mistake("model", "layers", f"entry {number} ({name}): {error}") from None


def _from_file(config: Config) -> nn.Module:
    path, name = config.place(config.get("model", "file")), config.get("model", "name", "Net")
    if not path.is_file():
        raise config.mistake("model", "file", f"names no file: {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise config.mistake("model", "name", f"'{name}' is not in {path}", known, word=name)
    made = getattr(module, name)(**config.get("model", "args", {}))
    if not isinstance(made, nn.Module):
        raise config.mistake("model", "name", f"gives a {type(made).__name__}, no nn.Module")
    return made


def dataset(config: Config, which: str) -> data.Dataset:
    """The batches of [data] train or validation."""
    path = config.place(config.get("data", which))
    if not path.exists():
        raise config.mistake("data", which, f"names no file: {path}")
    found = _source(config, path)
    if which == "train" and config.get("data", "shuffle", True):
        found = found.shuffle(seed=_number(config, "train", "seed", 0))
    rows = _number(config, "data", "batch", 64 if which == "train" else 256)
    if rows < 1:
        raise config.mistake("data", "batch", f"must be at least 1, found {rows}")
    drop = bool(config.get("data", "drop_last", False)) and which == "train"
    return found.batch(rows, drop_last=drop)


def _source(config: Config, path: Path) -> data.Dataset:
    if path.is_dir():
        size = config.get("data", "size")
        return data.images(path, size=tuple(size) if size else None)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            names = list(arrays)
            x, y = _columns(config, names)
            return data.arrays(*[_narrow(arrays[n]) for n in (*x, y)])
    target = config.get("data", "y", "target")
    columns = config.get("data", "x")
    if path.suffix == ".csv":
        return data.csv(path, target=target, columns=columns)
    if path.suffix == ".parquet":
        return data.parquet(path, target=target, columns=columns)
    raise config.mistake(
        "data", "train", f"is of no kind that is known: {path.name}",
        hint="npz, csv, parquet, or a folder of images",
    )  # fmt: skip


def _narrow(array: Any) -> Any:
    """Labels as i64, wide floats as f32."""
    if array.dtype == np.float64:
        return array.astype(np.float32)
    return array.astype(np.int64) if array.dtype.kind in "iu" and array.ndim == 1 else array


def _columns(config: Config, names: list[str]) -> tuple[list[str], str]:
    """The arrays of an npz file to take: inputs and target."""
    x = config.get("data", "x", "x")
    x = [x] if isinstance(x, str) else list(x)
    y = config.get("data", "y") or next((n for n in ("y", "target", "labels") if n in names), "y")
    for key, name in [*[("x", n) for n in x], ("y", y)]:
        if name not in names:
            raise config.mistake("data", key, f"'{name}' is no array of the file", names, word=name)
    return x, y


def optimizer(config: Config, steps: int) -> optim.Optimizer:
    """The optimizer of [optimizer], its rate the schedule of [schedule]."""
    given = dict(config.tables.get("optimizer", {}))
    name = str(given.pop("name", "adam")).lower()
    if name not in OPTIMIZERS:
        raise config.mistake(
            "optimizer", "name", f"'{name}' is no optimizer", OPTIMIZERS, word=name
        )
    cls = OPTIMIZERS[name]
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key, value in given.items():
        if key not in fields:
            raise config.mistake("optimizer", key, f"is no field of {name}", fields)
        if key == "lr" and not (isinstance(value, (int, float)) and value >= 0):
            raise config.mistake("optimizer", "lr", f"must be a number, found {value!r}")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    rate = given.pop("lr", None)
    default = fields["lr"].default
    rate = float(default if rate is None else rate)  # type: ignore[arg-type]
    return cls(**given, **{"lr": schedule(config, rate, steps)})


def schedule(config: Config, rate: float, steps: int) -> Any:
    """The schedule of [schedule] from this rate, or the rate alone."""
    given = dict(config.tables.get("schedule", {}))
    if not given:
        return rate
    name = given.pop("name", "constant")
    if name not in SCHEDULES:
        raise config.mistake("schedule", "name", f"'{name}' is no schedule", SCHEDULES, word=name)
    fields = list(inspect.signature(SCHEDULES[name]).parameters)
    for key in given:
        if key not in fields:
            raise config.mistake("schedule", key, f"is no field of {name}", fields)
    if "total" in fields and "total" not in given:
        given["total"] = max(1, steps)
    if fields[0] == "rate":
        given.setdefault("rate", rate)
    try:
        return SCHEDULES[name](**given)
    except TypeError as error:
        raise config.mistake("schedule", "name", f"'{name}': {error}") from None


def callbacks(config: Config) -> list[Callback]:
    """What [output] and patience ask for."""
    found: list[Callback] = []
    if folder := config.get("output", "checkpoints"):
        found.append(Checkpoint(config.place(folder)))
    if log := config.get("output", "log"):
        found.append(CSVLog(config.place(log)))
    if patience := config.get("train", "patience"):
        found.append(EarlyStopping(patience=int(patience), restore_best=True))
    return found


def _line(path: Path, table: str, key: str) -> int:
    """The line of a key in its table; 0 where that is not plain to see."""
    inside = False
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        bare = text.strip()
        if bare.startswith("["):
            inside = bare.startswith(f"[{table}]")
            if inside and not key:
                return number
        elif inside and key and bare.partition("=")[0].strip().strip('"') == key:
            return number
    return 0


__all__ = [
    "KEYS", "Config", "callbacks", "dataset", "model", "optimizer", "read", "schedule",
    "trainer_of",
]  # fmt: skip
