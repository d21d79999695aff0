"""Tensors as users hold them: operators, numpy's methods, `.grad` and `.backward()`.

A tensor is eager (it holds an array) or traced (it stands for a value of a trace and has a shape
and an element type only); the same functions take both.  Arrays are never written to: `x += y`
makes a new tensor.  May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ...ir.core import Array
from ...ir.errors import Error
from ...ir.types import DType, TensorType, from_numpy
from . import functions as F
from . import indexing, linear, reductions, shaping
from .dispatch import STATE, Base, as_array, as_tensor, escaped, here, leaf
from .dtypes import as_dtype
from .recording import backward

if TYPE_CHECKING:
    from .shaping import Axes

_REMEDY = {
    "bool": "nn.where for elements, nn.cond for branches, nn.while_loop for loops",
    "value": "compute with the tensor itself; nn.scan and nn.while_loop for loops",
    "array": "use the nn functions, which take traced tensors, in place of numpy's",
}


def no_value(x: Base, what: str, remedy: str) -> Error:
    """E0617: the program's text would depend on a value that a trace does not know."""
    return Error(
        "E0617",
        f"{what} needs the value of a tensor, which is not known while tracing",
        where=here(),
        details=(f"the tensor is {x.type}",),
        hint=_REMEDY[remedy],
    )


class Tensor(Base):
    """An array with operators, and with a gradient where one is asked for.

    Make one with `nn.tensor(data)`; attributes: `shape`, `dtype`, `ndim`, `size`, `T`, `grad`,
    `requires_grad`.
    """

    __slots__ = ()
    __array_priority__ = 100
    __array_ufunc__ = None  # numpy leaves its operators with tensors to us
    __hash__ = object.__hash__

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False) -> None:
        array = as_array(data, None if dtype is None else as_dtype(dtype))
        shared = array is data or array.base is not None or not array.flags.c_contiguous
        self.array = np.array(array, order="C") if shared else array
        self.type = TensorType(from_numpy(array.dtype), array.shape)
        self.value = self.trace = self.node = self.grad = None
        self.index = 0
        self.requires_grad = requires_grad

    # What it is ----------------------------------------------------------------------------------

    @property
    def shape(self) -> Any:
        """The extents; symbolic ones are expressions."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.type.shape)

    @property
    def size(self) -> Any:
        """The number of elements."""
        return math.prod(self.type.shape)

    @property
    def is_leaf(self) -> bool:
        """Whether it is the result of nothing recorded."""
        return self.node is None

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def numel(self) -> Any:
        """The number of elements."""
        return self.size

    # Values --------------------------------------------------------------------------------------

    def numpy(self) -> Array:
        """The values as an array, read-only because it is shared; `np.array(t)` copies."""
        if self.value is not None:
            raise no_value(self, "numpy()", "array")
        view = self.array.view()
        view.flags.writeable = False
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.value is not None:
            raise no_value(self, "an array", "array")
        if copy or (dtype is not None and np.dtype(dtype) != self.array.dtype):
            return np.array(self.array, dtype)
        return self.numpy()

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        """A function of numpy gets the values and gives arrays."""
        named = {name: _arrays(x) for name, x in kwargs.items()}
        return function(*[_arrays(x) for x in args], **named)

    def item(self) -> Any:
        """The only element as a Python number."""
        return self._scalar("item()")

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self.numpy().tolist()

    def _scalar(self, what: str) -> Any:
        if self.value is not None:
            raise no_value(self, what, "value")
        if self.array.size != 1:
            raise Error(
                "E0612", f"{what} needs one element, found {self.type}", where=here(),
                hint="reduce it first, or take an element by its index",
            )  # fmt: skip
        return self.array.item()

    def __float__(self) -> float:
        return float(self._scalar("float()"))

    def __int__(self) -> int:
        return int(self._scalar("int()"))

    def __index__(self) -> int:
        if not self.type.dtype.is_integer:
            raise TypeError(f"a tensor {self.type} is no index")
        return int(self._scalar("an index"))

    def __bool__(self) -> bool:
        if self.value is not None:
            raise no_value(self, "a condition (if, while, and, or, not)", "bool")
        return bool(self._scalar("a condition"))

    def __len__(self) -> int:
        if not self.type.shape:
            raise TypeError("a tensor without axes has no length")
        extent = self.type.shape[0]
        if not isinstance(extent, int):
            raise Error(
                "E0618",
                f"len() needs a number, and the extent {extent} is symbolic",
                where=here(),
                hint="x.shape[0] is the extent as an expression; nn.scan runs over the axis",
            )
        return extent

    def __iter__(self) -> Iterator[Tensor]:
        return iter([self[k] for k in range(len(self))])

    def __contains__(self, value: Any) -> bool:
        return bool(F.equal(self, value).any())

    def __repr__(self) -> str:
        if self.value is not None:
            return f"Tensor({self.type}, traced)"
        body = np.array2string(self.array, separator=", ", prefix="Tensor(", threshold=200)
        more = [f"dtype={self.type.dtype}"]
        if self.requires_grad:
            more.append(
                "requires_grad=True" if self.node is None else f"of={self.node.call.cls.name}"
            )
        return f"{type(self).__name__}({body}, {', '.join(more)})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __str__(self) -> str:
        if self.value is not None or self.type.shape:
            return repr(self)
        return str(self.array)

    # Gradients -----------------------------------------------------------------------------------

    def backward(self, gradient: Any = None) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf that requires one.

        `gradient` is the cotangent of this tensor, needed where it has more than one element.
        Errors: E0615.
        """
        backward(self, gradient)

    def detach(self) -> Tensor:
        """The same values without a history; in a trace, no cotangent passes."""
        return F.stop_gradient(self) if self.value is not None else leaf(self.array, self.type)

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Say whether `backward` shall reach this leaf."""
        if self.node is not None:
            raise Error("E0615", "only leaves can be told to require a gradient", where=here())
        if on and not self.type.dtype.is_float:
            raise Error("E0615", f"a tensor {self.type} has no gradient", where=here())
        self.requires_grad = on
        return self

    def assign(self, data: Any) -> None:
        """Take new values, of the same shape; converted to the element type.  E0612 otherwise.

        In a trace a parameter or buffer has them from here on, and the program gives them back.
        """
        new = as_tensor(data)
        if new.type.shape != self.type.shape:
            raise Error(
                "E0612", "new values have another shape", where=here(),
                details=(f"expected {self.type}", f"found {new.type}"),
            )  # fmt: skip
        if STATE.trace is not None and self.is_state:
            STATE.trace.assign(self, F.cast(new, self.type.dtype))
        elif new.value is not None:
            raise escaped(new)
        else:
            self.array = new.array.astype(self.array.dtype, copy=not isinstance(data, Base))

    @property
    def data(self) -> Tensor:
        """The values without a history; may be assigned to."""
        return self.detach()

    @data.setter
    def data(self, new: Any) -> None:
        self.assign(new)

    def clone(self) -> Tensor:
        """The same values; gradients pass."""
        return F.identity(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self.value is not None:
            raise escaped(self)
        made = leaf(self.array.copy(), self.type, self.requires_grad and self.node is None)
        memo[id(self)] = made
        return made

    def __copy__(self) -> Tensor:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.numpy(), None, self.requires_grad and self.node is None)

    # Operators -----------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return F.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return F.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return F.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return F.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return F.multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return F.multiply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return F.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return F.divide(other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return F.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return F.floor_divide(other, self)

    def __mod__(self, other: Any) -> Tensor:
        return F.remainder(self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return F.remainder(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return F.power(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return F.power(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return linear.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return linear.matmul(other, self)

    def __neg__(self) -> Tensor:
        return F.negative(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return F.abs(self)

    def __invert__(self) -> Tensor:
        return F.bitwise_not(self)

    def __and__(self, other: Any) -> Tensor:
        return F.bitwise_and(self, other)

    def __rand__(self, other: Any) -> Tensor:
        return F.bitwise_and(other, self)

    def __or__(self, other: Any) -> Tensor:
        return F.bitwise_or(self, other)

    def __ror__(self, other: Any) -> Tensor:
        return F.bitwise_or(other, self)

    def __xor__(self, other: Any) -> Tensor:
        return F.bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return F.bitwise_xor(other, self)

    def __lshift__(self, other: Any) -> Tensor:
        return F.left_shift(self, other)

    def __rshift__(self, other: Any) -> Tensor:
        return F.right_shift(self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return NotImplemented if other is None else F.equal(self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return NotImplemented if other is None else F.not_equal(self, other)

    def __lt__(self, other: Any) -> Tensor:
        return F.less(self, other)

    def __le__(self, other: Any) -> Tensor:
        return F.less_equal(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return F.greater(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return F.greater_equal(self, other)

    def __getitem__(self, key: Any) -> Tensor:
        return indexing.getitem(self, key)

    def __setitem__(self, key: Any, new: Any) -> NoReturn:
        raise Error(
            "E0619",
            "tensors are not written to",
            where=here(),
            hint="nn.where, nn.scatter or nn.concatenate make a new one",
        )

    # Methods that are functions ------------------------------------------------------------------

    @property
    def T(self) -> Tensor:
        """The axes in opposite order."""
        return shaping.transpose(self)

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return shaping.swapaxes(self, -1, -2)

    def astype(self, dtype: Any) -> Tensor:
        """The elements as another type."""
        return F.cast(self, dtype)

    to = astype

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The sum over axes."""
        return reductions.sum(self, axis, keepdims)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The mean over axes."""
        return reductions.mean(self, axis, keepdims)

    def prod(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The product over axes."""
        return reductions.prod(self, axis, keepdims)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The greatest element over axes."""
        return reductions.max(self, axis, keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The least element over axes."""
        return reductions.min(self, axis, keepdims)

    def var(self, axis: Axes = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        """The variance over axes."""
        return reductions.var(self, axis, keepdims, ddof)

    def std(self, axis: Axes = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        """The standard deviation over axes."""
        return reductions.std(self, axis, keepdims, ddof)

    def all(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Whether all elements are true."""
        return reductions.all(self, axis, keepdims)

    def any(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Whether an element is true."""
        return reductions.any(self, axis, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Where the greatest element stands."""
        return reductions.argmax(self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Where the least element stands."""
        return reductions.argmin(self, axis, keepdims)

    def cumsum(self, axis: int | None = None) -> Tensor:
        """The running sum along an axis."""
        return reductions.cumsum(self, axis)

    def norm(self, ord: float = 2, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The vector norm over axes."""
        return reductions.norm(self, ord, axis, keepdims)

    def softmax(self, axis: int = -1) -> Tensor:
        """Exponentials along the axis, scaled to sum to one."""
        return reductions.softmax(self, axis)

    def reshape(self, *shape: Any) -> Tensor:
        """The elements as another shape; one extent may be -1."""
        return shaping.reshape(self, *shape)

    view = reshape

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        """The axes from `start` to `end` as one."""
        return shaping.flatten(self, start, end)

    def transpose(self, *axes: Any) -> Tensor:
        """The axes in another order."""
        return shaping.transpose(self, *axes)

    permute = transpose

    def swapaxes(self, one: int, other: int) -> Tensor:
        """Two axes exchanged."""
        return shaping.swapaxes(self, one, other)

    def squeeze(self, axis: Axes = None) -> Tensor:
        """Without axes of extent 1."""
        return shaping.squeeze(self, axis)

    def unsqueeze(self, axis: int) -> Tensor:
        """With a new axis of extent 1."""
        return shaping.expand_dims(self, axis)

    def expand(self, *shape: Any) -> Tensor:
        """Repeated to a shape; -1 keeps an extent."""
        return shaping.broadcast_to(self, *shape)

    def repeat(self, repeats: Any, axis: int | None = None) -> Tensor:
        """Each element so often in a row along the axis."""
        return shaping.repeat(self, repeats, axis)

    def chunk(self, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
        """At most so many parts along an axis."""
        return shaping.chunk(self, chunks, axis)

    def split(self, sections: Any, axis: int = 0) -> tuple[Tensor, ...]:
        """Parts along an axis: so many equal ones, or parts of these sizes."""
        return shaping.split(self, sections, axis)

    def clip(self, low: Any = None, high: Any = None) -> Tensor:
        """At least `low` and at most `high`."""
        return F.clip(self, low, high)

    def exp(self) -> Tensor:
        """e to the power of it."""
        return F.exp(self)

    def log(self) -> Tensor:
        """The natural logarithm."""
        return F.log(self)

    def sqrt(self) -> Tensor:
        """The square root."""
        return F.sqrt(self)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return F.tanh(self)

    def abs(self) -> Tensor:
        """The magnitude."""
        return F.abs(self)

    def round(self) -> Tensor:
        """The nearest integer, ties to the even one."""
        return F.round(self)


def _arrays(x: Any) -> Any:
    """Arrays in place of tensors, also in lists and tuples."""
    if isinstance(x, Base):
        return np.asarray(x)
    return type(x)([_arrays(e) for e in x]) if type(x) in (list, tuple) else x


class Buffer(Tensor):
    """A tensor of a module that is state and no parameter: running statistics, positions.

    `label` names it in a trace where no module does.
    """

    __slots__ = ("label",)
    is_state = True

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False) -> None:
        super().__init__(data, dtype, requires_grad)
        self.label = ""

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        made = memo[id(self)] = type(self)(self.array.copy())
        made.label = self.label
        return made


class Parameter(Tensor):
    """A tensor that training changes; modules find it where it is an attribute."""

    __slots__ = ()
    is_state = True

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = True) -> None:
        super().__init__(data, dtype, requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        made = memo[id(self)] = type(self)(self.array.copy(), None, self.requires_grad)
        return made


class Holder:
    """Base of modules: what holds parameters and buffers, and is found where a function uses it."""


def as_buffer(value: Any) -> Any:
    """The value as a buffer: eager ones without a history, traced ones as they are."""
    t = as_tensor(value)
    if t.value is not None or (isinstance(t, Buffer) and not t.requires_grad):
        return t
    made = Buffer.__new__(Buffer)
    made.array, made.type = t.array, t.type
    made.value = made.trace = made.node = made.grad = None
    made.index, made.requires_grad, made.label = 0, False, ""
    return made


__all__ = ["Buffer", "Parameter", "Tensor", "as_buffer"]
