"""Results too large for the caches: written past them, so that their lines are not read first.

A streamed store needs an aligned address, which only a run can tell, so the nest stands twice: once
streaming, once plain.  May import: ir, the steps beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.core import Block, Value
from ...ir.dims import linear
from ...ir.ops.core import Func
from ...ir.ops.loop import Aligned, Fence, For, Store, When
from .nests import Refused, accesses, find_buffer, find_loop
from .scheduler import Scheduler, address, static
from .steps import Step, rename_nest


@dataclass(frozen=True)
class Stream(Step):
    """Write the vectors of `label` under the top loop `loop` past the caches where it is aligned.

    Vectors that do not start at multiples of their size (tails) stay plain stores.
    """

    label: str
    loop: str
    suffix: str = ".u"

    def apply(self, kernel: Func) -> None:
        loop, target = find_loop(kernel, self.loop), find_buffer(kernel, self.label)
        if loop.block is not kernel.body:
            raise Refused(f"{self.loop} is not at the top of the kernel")
        stores = [op for op in accesses(loop) if isinstance(op, Store) and op.target is target]
        sizes = {vector_bytes(op) for op in stores} - {0}
        if len(sizes) != 1:
            raise Refused(f"{self.label} is not written in aligned vectors under {self.loop}")
        plain = loop.copy({})
        rename_nest(kernel, plain, self.suffix)
        for op in stores:
            if vector_bytes(op):
                op.set_attr("stream", True)
        after = loop.next
        kernel.body.remove(loop)
        then, otherwise = Block(), Block()
        then.append(loop)
        otherwise.append(plain)
        shared = [op for op in loop.walk() if isinstance(op, For) and op.kind == "parallel"]
        (shared[0].body if shared else then).append(Fence())
        aligned = kernel.body.insert_before(Aligned(target, bytes=sizes.pop()), after)
        kernel.body.insert_before(When(aligned.result, regions=[then, otherwise]), after)


def vector_bytes(store: Store) -> int:
    """The size of the vector that this store will be, if every one starts at a multiple of it."""
    lanes = store.parent_op
    if not isinstance(lanes, For) or lanes.kind != "vector" or store.where:
        return 0
    size = static(lanes.extent) * store.target.buffer.dtype.bytes
    terms = linear(address(store))
    if terms is None or not isinstance(lanes.extent, int) or size not in (32, 64):
        return 0
    steps, start = dict(terms[0]), terms[1]
    if steps.pop(lanes.var, 0) != 1:
        return 0
    width = store.target.buffer.dtype.bytes
    return size if all(step * width % size == 0 for step in (*steps.values(), start)) else 0


def stream_results(s: Scheduler) -> None:
    """Stream every result that the target's caches could not hold anyway."""
    least = s.target.stream_bytes
    for loop in [op for op in s.kernel.body if isinstance(op, For)] if least else []:
        for buffer in _written(s, loop):
            if static(buffer.buffer.size, 0) * buffer.buffer.dtype.bytes >= least:
                s.attempt(Stream(buffer.name or "", loop.var))
                break


def _written(s: Scheduler, loop: For) -> list[Value]:
    args = set(s.kernel.args)
    found = {op.target: None for op in accesses(loop) if isinstance(op, Store)}
    return [buffer for buffer in found if buffer in args]


__all__ = ["Stream", "stream_results", "vector_bytes"]
