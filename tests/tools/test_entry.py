"""The script: an interrupt at any moment ends it with 130 and without a traceback."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time

import pytest

# The parts of a run, each as a program that stops there until it is interrupted.
STOP = "import time; print('ready', flush=True); time.sleep(30)"
MOMENTS = {
    "while importing": f"""
import sys
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "irc.tools.main":
            {STOP}
sys.meta_path.insert(0, Slow())
""",
    "in the command": f"""
import irc.tools.main as main
def run(args):
    from irc.tools.errors import guarded
    def call():
        {STOP}
    return guarded(call, args)
main.run = run
""",
    "outside the command": f"""
import irc.tools.main as main
def run(args):
    {STOP}
main.run = run
""",
    "in an import that turns it into another error": f"""
import irc.tools.main as main
def run(args):
    from irc.tools.errors import guarded
    def call():
        try:
            {STOP}
        except KeyboardInterrupt:
            raise ImportError("numpy")
    return guarded(call, args)
main.run = run
""",
    "where Python cannot raise": f"""
import time, weakref
import irc.tools.main as main
class Thing: pass
def run(args):
    from irc.tools.errors import guarded
    def gone(reference):
        {STOP}
    def call():
        thing = Thing()
        reference = weakref.ref(thing, gone)
        del thing
        time.sleep(30)
    return guarded(call, args)
main.run = run
""",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_is_quiet(moment: str) -> None:
    code = f"{MOMENTS[moment]}\nfrom irc.tools.entry import main\nmain()"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "interrupted\n")


def test_the_exit_code_is_the_command_s() -> None:
    shell = subprocess.run([sys.executable, "-P", "-m", "irc.tools.entry", "nope"])
    assert shell.returncode == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_matter(closed: str) -> None:
    line = f"{shlex.quote(sys.executable)} -P -m irc.tools.entry targets {closed}"
    found = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert (found.returncode, found.stderr.count("Error")) == (0, 0)
    assert ("aarch64-linux" in found.stdout) == (" >&-" not in f" {closed}")
