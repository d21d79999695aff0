"""What a target is to the compiler: registers, vectors, caches, and the choices that follow from
them.

Frozen and typed here, so that passes can read it; the backends supply the instances.  `schedule`
turns a kernel of plain loops into schedule steps; `layout_block` is the channel block for blocked
layouts. Imports: nothing of the package but the core's types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .ops.core import Func

Schedule = Callable[[Func, "Target"], Sequence[Any]]


def plain_schedule(kernel: Func, target: Target) -> Sequence[Any]:
    """No steps: the loops run as they were lowered."""
    return ()


@dataclass(frozen=True)
class Target:
    """A machine to compile for.

    `vector_bits` is 0 where code is not vectorised by us; `registers` counts vector registers;
    caches are in bytes; `fma` says whether multiply-add is one operation; `expand` whether vector
    and unroll loops are written out before printing (LLVM) or printed as loops (C); `unroll_tiles`
    writes the unrolled loops out there too, so that a C compiler sees register tiles with constant
    indices. `unroll` rounds of the innermost reduction are written out.
    """

    name: str
    arch: str = "any"
    vector_bits: int = 0
    registers: int = 16
    fma: bool = False
    expand: bool = False
    unroll_tiles: bool = False
    unroll: int = 4
    pad_reuse: int = 8
    threads: int = 1
    l1: int = 32 << 10
    l2: int = 512 << 10
    l3: int = 4 << 20
    line: int = 64
    layout_block: int = 0
    features: frozenset[str] = frozenset()
    stream_bytes: int = 0
    """Results from this size on are written past the caches (0: never)."""
    widen: bool = False
    """f16 and bf16 are computed in f32: there is no arithmetic in them."""
    host: bool = True
    """Host steps (data-dependent shapes, strings) are possible."""
    schedule: Schedule = plain_schedule

    def lanes(self, bits: int) -> int:
        """Vector lanes for elements of this many bits (1 where nothing is vectorised)."""
        return max(1, self.vector_bits // bits)
