"""A small process beside training ones: it says which of them was killed, and ends the others.

A launcher kills all processes a moment after one of them died, too fast for Python threads to speak
up.  Run as a script with a folder, then pairs of a process id and what to say of its death.  A file
`ended` in the folder says that the job ends by itself.  Imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time

ENDED = "ended"
GRACE_S = 5.0


def watch(folder: str, said: dict[int, str]) -> None:
    """Wait until a process of `said` dies; speak unless the job ends by itself."""
    poll = select.poll()
    handles = {}
    for pid in said:
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            handles[handle] = pid
            poll.register(handle, select.POLLIN)
    if not handles:
        return
    dead = [handles[handle] for handle, _ in poll.poll()]
    if not os.path.exists(os.path.join(folder, ENDED)):
        os.write(2, (said[dead[0]] + "\n").encode())
        time.sleep(GRACE_S)
        for pid in [p for p in said if p not in dead]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    _, place, *pairs = sys.argv
    try:
        watch(place, dict(zip([int(p) for p in pairs[::2]], pairs[1::2])))
    finally:
        shutil.rmtree(place, ignore_errors=True)
