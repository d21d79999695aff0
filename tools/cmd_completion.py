"""`irc completion`: the script that teaches a shell the commands, flags and values of `irc`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .options import verbosity

VARIABLE = "_IRC_COMPLETE"
"""What the shell sets when it asks `irc` itself for words."""
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@verbosity
def command(shell: str) -> None:
    """Print the completion script of a shell.

    bash: `eval "$(irc completion bash)"` in ~/.bashrc; zsh: the same with zsh in ~/.zshrc; fish:
    `irc completion fish > ~/.config/fish/completions/irc.fish`.
    """
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """The script; click's own, which asks `irc` with the variable set."""
    from .main import group

    found = get_completion_class(shell)
    assert found is not None
    made = found(group, {}, "irc", VARIABLE)
    return made.source_template % made.source_vars() + "\n"


def answer(instruction: str) -> int:
    """What a shell asked for with the variable set to `bash_complete` and the like."""
    from click.shell_completion import shell_complete

    from .main import group

    return shell_complete(group, {}, "irc", VARIABLE, instruction)
