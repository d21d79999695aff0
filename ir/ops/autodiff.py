"""What a program says about its own gradient: where it stops, where it is the user's, where values
are computed a second time instead of being kept.

All but `recompute` are taken apart by `decompose` once differentiation is over.  Imports: the core,
control flow (whose regions these are like), types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ..core import (
    Any_,
    Array,
    Builder,
    Grads,
    Loc,
    Op,
    Value,
    attr,
    operand,
    region,
    sample,
    variadic,
)
from ..types import Type
from .control import Blocks, Fill, block_of, expect_types, inlined, only, types_of, yields


class StopGradient(Op):
    """x itself, through which no cotangent passes."""

    no_gradient: ClassVar[str] = "asked for"
    x = operand(Any_)
    samples = (sample((3, 5)), sample((0,)), sample(()))

    @staticmethod
    def infer(x: Type) -> Type:
        return x

    @staticmethod
    def evaluate(x: Array) -> Array:
        return x

    def decompose(self, b: Builder) -> Value:
        return self.x


class Recompute(Op):
    """x itself, but not before the values `after` are known.

    What is computed from it is computed a second time: it is merged neither with what is computed
    from x, nor with what is computed from one with another label, nor done as early.  Stays until
    regions are fused, then is x.
    """

    x = operand(Any_)
    after = variadic(Any_)
    label = attr(str, "")
    samples = (sample((3, 5), (2,)), sample((0,)), sample((), (), (4,)))

    @staticmethod
    def infer(x: Type, *after: Type, label: str) -> Type:
        return x

    @staticmethod
    def evaluate(x: Array, *after: Array, label: str) -> Array:
        return x

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (g, *[None] * len(self.after))


class Remat(Op):
    """What `body` yields; in the reverse pass its ops run a second time, so that of all the values
    inside only the inputs (and what the region reads from outside) are kept until then.

    C1: the region's arguments are the types of the inputs.
    """

    inputs = variadic(Any_)
    body = region("the inputs; yields the results")

    @classmethod
    def make(cls, inputs: Sequence[Value], body: Fill, loc: Loc | None = None) -> Remat:
        """A `remat` whose region `body(b, *inputs)` builds."""
        return cls(*inputs, regions=[block_of(types_of(inputs), body, loc)], loc=loc)

    def result_types(self) -> tuple[Type, ...]:
        want, found = types_of(self.operands), types_of(self.body.args)
        expect_types(self, "C1", "the region takes the inputs", want, found)
        return yields(self, 0)

    def interpret(self, interp: Blocks, *arrays: Array) -> Any:
        """Run the region."""
        return only(interp.block(self.body, arrays))

    def decompose(self, b: Builder) -> list[Value]:
        return inlined(b, self.body, self.operands)


class CustomGradient(Op):
    """What `forward` yields for the inputs, with the cotangents that `backward` yields.

    Both regions see their arguments only.  C1: `forward` takes the inputs.  C2: `backward` takes
    the inputs, the results, and a cotangent of the type of each result (zeros where there is none,
    also for a result that is no float).  C3: it yields a cotangent of the type of each input; what
    it yields for one that is no float is not looked at.
    """

    inputs = variadic(Any_)
    forward = region("the inputs; yields the results")
    backward = region("inputs, results, cotangents of the results; yields those of the inputs")

    @classmethod
    def make(
        cls, inputs: Sequence[Value], forward: Fill, backward: Fill, loc: Loc | None = None
    ) -> CustomGradient:
        """An op whose regions `forward(b, *inputs)` and `backward(b, *inputs, *results,
        *cotangents)` build.
        """
        taken = types_of(inputs)
        first = block_of(taken, forward, loc)
        given = types_of(first.last.operands) if first.last is not None else ()
        second = block_of((*taken, *given, *given), backward, loc)
        return cls(*inputs, regions=[first, second], loc=loc)

    def result_types(self) -> tuple[Type, ...]:
        taken = types_of(self.operands)
        found = types_of(self.forward.args)
        expect_types(self, "C1", "the forward region takes the inputs", taken, found)
        given = yields(self, 0)
        expect_types(
            self,
            "C2",
            "the backward region takes inputs, results and cotangents",
            (*taken, *given, *given),
            types_of(self.backward.args),
        )
        expect_types(
            self, "C3", "the backward region must yield the types of the inputs", taken,
            yields(self, 1),
        )  # fmt: skip
        return given

    def interpret(self, interp: Blocks, *arrays: Array) -> Any:
        """Run the forward region."""
        return only(interp.block(self.forward, arrays))

    def decompose(self, b: Builder) -> list[Value]:
        return inlined(b, self.forward, self.operands)


__all__ = ["CustomGradient", "Recompute", "Remat", "StopGradient"]
