"""`irc train`: train the network that a TOML file describes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import FiniteRange, json_flag, note, verbose, verbosity
from .tables import show_json

if TYPE_CHECKING:
    from ..frontends.train.config import Config
    from ..frontends.train.data import Dataset
    from ..frontends.train.trainer import Trainer


@click.command()
@click.argument("config", type=click.Path())
@click.option("--epochs", type=click.IntRange(1), default=None, help="Instead of the file's.")
@click.option("--threads", type=click.IntRange(1), default=None, help="Instead of the file's.")
@click.option(
    "--activation-memory", type=FiniteRange(0, min_open=True), default=None,
    help="Keep so many bytes of activations, or (up to 1) this share; compute the rest again.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint, to the bit.")
@click.option("--evaluate", "only", is_flag=True, help="Load the best checkpoint and evaluate.")
@json_flag
@verbosity
def command(
    config: str,
    epochs: int | None,
    threads: int | None,
    activation_memory: float | None,
    resume: bool,
    only: bool,
    as_json: bool,
) -> None:
    """Train the network that CONFIG (TOML) describes: model, data, loss, optimizer, outputs.

    docs/training.md has a whole file.  Checkpoints go to the folder that [output] names; with
    --resume a training that was cut off goes on where it was.
    """
    from ..frontends.train.config import read, trainer_of
    from . import driver

    described = read(config)
    if activation_memory is not None and activation_memory > 1:
        activation_memory = int(activation_memory)
    given = {"threads": threads, "activation_memory": activation_memory}
    described.tables["train"] |= {k: v for k, v in given.items() if v is not None}
    trainer, fit = trainer_of(described, driver.load)
    if epochs is not None:
        fit["epochs"] = epochs
    if resume or only:
        trainer.load(_checkpoint(described, "best" if only else "last"))
    if only:
        found = trainer.evaluate(fit["validation"] or fit["dataset"])
        _show({name: _plain(value) for name, value in found.items()}, as_json)
        return
    history = trainer.fit(**fit, progress=None if verbose() >= 0 else False)
    written = _outputs(described, trainer, fit["dataset"])
    last = {name: _plain(values[-1]) for name, values in history.epochs.items()}
    facts = {"epochs": trainer.epoch, "stopped": history.stopped, **last, "written": written}
    _show(facts, as_json)


def _checkpoint(config: Config, which: str) -> Path:
    folder = config.get("output", "checkpoints")
    if not folder:
        raise config.mistake("output", "checkpoints", "is missing: there is nothing to go on from")
    return config.place(folder) / which


def _outputs(config: Config, trainer: Trainer, batches: Dataset) -> list[str]:
    """Write the files that [output] asks for."""
    from ..frontends import nn
    from . import driver

    written = []
    if model := config.get("output", "model"):
        goal = config.place(model)
        x = batches.peek()
        x = x[0] if isinstance(x, tuple) else x
        example = nn.Spec(("N", *x.shape[1:]), str(nn.tensor(x[:1]).dtype))
        if goal.suffix == ".onnx":
            driver.export_onnx(trainer.net, goal, example=example)
        else:
            trainer.net.save(str(goal), example)
        written.append(str(goal))
    if step := config.get("output", "step"):
        trainer.export_step(config.place(step))
        written.append(str(config.place(step)))
    for path in written:
        note(f"written to {path}")
    return written


def _plain(value: Any) -> Any:
    """A value as JSON and people take it."""
    return value.tolist() if hasattr(value, "tolist") else value


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(facts)
        return
    for name, value in facts.items():
        if isinstance(value, float):
            click.echo(f"{name:16s} {value:.6g}")
        elif value and name != "written":
            click.echo(f"{name:16s} {value}")


__all__ = ["command"]
