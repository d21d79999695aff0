"""Sums of products over the rounds of a scan, taken as one product after it.

The cotangent of a matrix that every round multiplies by is the sum of the rounds' products of two
small factors.  Carried along it would be read and written whole in each round; instead the factors
are stacked, where they are not so already, and one contraction sums over rounds as well.
May import: ir.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...ir.core import Block, Builder, Op, Value
from ...ir.dims import DimLike
from ...ir.ops.contract import Contract, parse_equation
from ...ir.types import DType

LETTERS = "tuvwxyzabcdefghijklmnopqrs"


@dataclass(frozen=True)
class Later:
    """A sum of products: (equation, factor, factor) of one round; factors are what a stack is made
    of, by its number among the yielded values, or (negative) the argument number, less one."""

    terms: tuple[tuple[str, int, int], ...]
    dtype: DType

    def taken(self, b: Builder, scanned: Mapping[int, Value], stacks: Mapping[int, Value]) -> Value:
        """The sum, from the stacks of all rounds."""

        def whole(at: int) -> Value:
            return stacks[at] if at >= 0 else scanned[-at - 1]

        parts: list[Value] = []
        for equation, x, y in self.terms:
            letter = next(c for c in LETTERS if c not in equation)
            of_x, of_y, out = parse_equation(equation)
            over = f"{letter}{of_x},{letter}{of_y}->{out}"
            left, right = whole(x), whole(y)
            wide = None if left.tensor.dtype is self.dtype else self.dtype
            parts.append(b.contract(left, right, equation=over, out=wide))
        total = parts[0]
        for part in parts[1:]:
            total = b.add(total, part)
        return total


def taken_later(block: Block, first: int, count: int) -> dict[int, Later]:
    """Change a scan's body so that it no longer carries those of its `count` totals, from argument
    `first` on, that are sums of products: by number what is to be taken after it.

    A total is yielded as the argument plus what the round adds.  The stacks needed stand behind the
    yielded values, in order.
    """
    last = block.last
    assert last is not None
    chosen: dict[int, list[Op]] = {}
    for k in range(count):
        add = last.operands[first + k].op
        products = _products(add.operands[1], block) if add is not None else None
        if products is not None and _pays(products, block, first + count):
            chosen[k] = products
    gone = {first + k for k in chosen}
    sums = [last.operands[k].op for k in sorted(gone)]
    shift = len(gone)
    yields = [v for k, v in enumerate(last.operands) if k not in gone]
    found: dict[int, Later] = {}
    for k, products in chosen.items():
        terms = []
        for product in products:
            x, y = [_stacked(v, block, first + count, yields, shift) for v in product.operands]
            terms.append((product.attributes["equation"], x, y))
        found[k] = Later(tuple(terms), block.args[first + k].tensor.dtype)
    last.set_operands(yields)
    for add in sums:
        assert add is not None
        _erase_unused(add)
    block.args = tuple([a for k, a in enumerate(block.args) if k not in gone])
    for index, arg in enumerate(block.args):
        arg.index = index
    return found


def _products(value: Value, block: Block) -> list[Op] | None:
    """The contractions whose sum a value is, all factors the block's own; None if it is not."""
    op = value.op
    if op is None or op.block is not block or len(value.users) != 1:
        return None
    if op.name == "add" and all([v.type is value.type for v in op.operands]):
        parts = [_products(v, block) for v in op.operands]
        return [p for part in parts for p in part or ()] if all(parts) else None
    if op.name == "cast" and op.operands[0].tensor.dtype.is_float:
        return _products(op.operands[0], block)
    if not isinstance(op, Contract) or op.out is not None:
        return None
    return [op] if all([_own(v, block) for v in op.operands]) else None


def _own(value: Value, block: Block) -> bool:
    return value.owner is block or (isinstance(value.owner, Op) and value.owner.block is block)


def _pays(products: Sequence[Op], block: Block, scanned: int) -> bool:
    """The stacks to be made are no larger than the total, which is not read and written."""
    last = block.last
    assert last is not None
    more: DimLike = 0
    for product in products:
        for value in product.operands:
            if value not in last.operands and value not in block.args[scanned:]:
                more = more + value.tensor.size
    size = products[0].result.tensor.size
    return more == 0 or (isinstance(more, int) and isinstance(size, int) and more <= size)


def _stacked(value: Value, block: Block, scanned: int, yields: list[Value], shift: int) -> int:
    """Which stack holds a factor; a further one if there is none."""
    if value in block.args[scanned:]:
        return -(value.index - shift) - 1
    carried = scanned - shift
    if value not in yields[carried:]:
        yields.append(value)
    return yields.index(value, carried)


def _erase_unused(op: Op) -> None:
    """Erase an op whose results nobody reads, and what only it read."""
    if any([r.users for r in op.results]):
        return
    read = [v.op for v in op.operands if v is not None and v.op is not None]
    block = op.block
    op.erase()
    for other in read:
        if other.block is block and block is not None and other.pure:
            _erase_unused(other)


__all__ = ["Later", "taken_later"]
