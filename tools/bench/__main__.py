"""`python -m irc.tools.bench NAME`: a yardstick of this package by name; `--help` lists them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

# name -> help line; the module of that name has a click command called `command`
BENCHES = {
    "cpu": "Whole networks beside onnxruntime and OpenVINO: latency, memory, compile time.",
    "ir": "Speed and size of the IR on 100,000 ops.",
    "kernels": "Single kernels beside the FMA peak and the copy bandwidth.",
    "train_kernels": "Forward and both gradients of convolutions beside torch.",
    "training": "Train steps beside torch eager and torch.compile: time and memory.",
}


class LazyGroup(click.Group):
    """The table above as subcommands, each imported only when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in alphabetical order."""
        return sorted(BENCHES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the bench; None where there is no such name."""
        if name not in BENCHES:
            return None
        found: Any = import_module(f".{name}", __package__)
        command: click.Command = found.command
        return command


@click.command(cls=LazyGroup)
def main() -> None:
    """Measurements of irc against its own bars and against the peers."""


if __name__ == "__main__":
    main()
