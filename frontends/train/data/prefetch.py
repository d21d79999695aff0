"""Prefetch: a thread that computes the next elements while the present one is used.

Invariants: at most `number` elements lie ready; the thread ends when the iterator does, however it
ends; an exception in the thread appears at its place in the order.
Imports the standard library and elements.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from .element import Element

JOIN_SECONDS = 5.0


class _End:
    """What the thread puts last: nothing more, or the exception that ended it."""

    def __init__(self, reason: BaseException | None) -> None:
        self.reason = reason


def ahead(make: Callable[[], Iterator[Element]], number: int) -> Iterator[Element]:
    """The elements of `make()`, at most `number` of them computed in advance by a thread."""
    ready: SimpleQueue[Element | _End] = SimpleQueue()
    room, stop = threading.Semaphore(number), threading.Event()
    thread = threading.Thread(
        target=_fill, args=(make, ready, room, stop), daemon=True, name="irc-data-prefetch"
    )
    thread.start()
    try:
        while not isinstance(found := ready.get(), _End):
            room.release()
            yield found
        if found.reason is not None:
            raise found.reason
    finally:
        stop.set()
        room.release()
        if thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)


def _fill(
    make: Callable[[], Iterator[Element]],
    ready: SimpleQueue[Element | _End],
    room: threading.Semaphore,
    stop: threading.Event,
) -> None:
    """The thread: an element for each place that is free, until the end or the stop."""
    reason: BaseException | None = None
    elements: Iterator[Element] | None = None
    try:
        elements = make()
        while not stop.is_set():
            room.acquire()
            if stop.is_set():
                break
            element = next(elements, None)
            if element is None:
                break
            ready.put(element)
    except BaseException as error:  # it belongs to whoever iterates
        reason = error
    finally:
        del elements  # ends what runs below: worker pools, generators
        ready.put(_End(reason))
