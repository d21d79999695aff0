"""The script `irc`: from the first moment an interrupt ends it quietly, with 130.

Python would answer Ctrl-C with a traceback while it still imports.  Imports nothing before that is
settled; `main` of main.py is what runs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

INTERRUPTED = 130


def leave(number: int, frame: FrameType | None) -> None:
    """End the process at once: nothing has been begun that would need tidying."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def unraised(lost: sys.UnraisableHookArgs) -> None:
    """Where Python cannot raise (a weak reference's callback) an interrupt is lost: send it anew.

    A moment later, for here it would be lost again.
    """
    if lost.exc_type is not None and issubclass(lost.exc_type, KeyboardInterrupt):
        target = threading.main_thread().ident
        assert target is not None
        threading.Timer(0.01, signal.pthread_kill, (target, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


def fill_streams() -> None:
    """Put the null device where a standard stream is closed (`irc ... >&-`): the next file that is
    opened would take its number, and Python has None in its place.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def main() -> None:
    """Import and run the command; interrupts are ordinary exceptions while it works."""
    signal.signal(signal.SIGINT, leave)
    fill_streams()
    from .main import main as command

    sys.unraisablehook = unraised
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command()
    except KeyboardInterrupt:
        leave(0, None)
    finally:
        signal.signal(signal.SIGINT, leave)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
