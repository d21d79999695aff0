"""The tests of every op, made from its class: one matrix over OPS x samples x claimed element
types.

A class's `samples` are calls that must work, its `rejects` pairs (constraint, sample) calls that
must fail naming that constraint.  Ops with regions, and those of the kernel level, have tests of
their own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import irc.ir.ops  # noqa: F401  registers every op
from irc.ir.core import OPS, Array, Builder, Op, Sample, Value, dims_of
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.convert import convert, widen
from irc.ir.ops.core import Func, Return
from irc.ir.text import check_round_trip
from irc.ir.types import DType, TensorType, from_numpy

FLOATS = ("f32", "f64", "f16", "bf16", "f8e4m3fn", "f8e5m2")
INTS = ("i32", "i64", "i16", "i8", "i4", "u8", "u16", "u32", "u64", "u4")
CLAIMS = {"float": FLOATS, "int": INTS, "bool": ("bool",), "complex": ("c64",)}
EPSILON = {"f64": 2e-13, "f32": 3e-6, "f16": 2e-3, "bf16": 1.6e-2, "f8e4m3fn": 0.13, "f8e5m2": 0.26}


def classes() -> list[type[Op]]:
    """Ops with samples, or with constraints to violate."""
    return [
        c for c in OPS.values() if (c.samples or getattr(c, "rejects", ())) and not c.spec.regions
    ]


def claimed(cls: type[Op]) -> list[str]:
    """The element types that the first operand of the class accepts, f32 first where it may be."""
    if not cls.spec.operands:
        return ["f32"]
    kinds = {kind for d in cls.spec.operands for kind in d.kind.kinds}
    names = [n for kind, group in CLAIMS.items() if kind in kinds for n in group]
    return [n for n in names if _accepts_somewhere(cls, n)] or ["f32"]


def _accepts_somewhere(cls: type[Op], name: str) -> bool:
    """Whether the op's main operands (not bools or indices on the side) take this type."""
    widest = max([d.kind for d in cls.spec.operands], key=lambda kind: len(kind.kinds))
    return widest.accepts(DType(name))


def operand_dtypes(cls: type[Op], sample: Sample, swept: str) -> list[str]:
    """One element type per operand: the sample's own, else `swept` where accepted, else f32, i64 or
    bool.
    """
    chosen = []
    for k in range(len(sample.shapes)):
        if sample.dtypes:
            chosen.append(sample.dtypes[min(k, len(sample.dtypes) - 1)])
            continue
        kind = cls.spec.operands[min(k, len(cls.spec.operands) - 1)].kind
        chosen.append(
            next(n for n in (swept, "f32", "i64", "bool", "string") if kind.accepts(DType(n)))
        )
    return chosen


def operand_values(sample: Sample, dtypes: list[str], seed: int = 7) -> list[Array | None]:
    """Seeded operands within the sample's ranges (default -2 to 2)."""
    rng = np.random.default_rng(seed)
    made: list[Array | None] = []
    for k, (shape, name) in enumerate(zip(sample.shapes, dtypes, strict=True)):
        low, high = sample.ranges[min(k, len(sample.ranges) - 1)] if sample.ranges else (-2.0, 2.0)
        made.append(None if shape is None else random_array(rng, shape, DType(name), low, high))
    return made


def random_array(
    rng: np.random.Generator, shape: Any, dtype: DType, low: float, high: float
) -> Array:
    if dtype.kind == "bool":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.kind == "string":
        return np.array(rng.integers(0, 99, shape).astype(str), object)
    if dtype.kind == "complex":
        return (rng.uniform(low, high, shape) + 1j * rng.uniform(low, high, shape)).astype(dtype.np)
    if dtype.is_integer:
        bottom = 0 if dtype.kind == "uint" else max(int(np.ceil(low)), -(1 << (dtype.bits - 1)))
        top = min(max(int(np.floor(high)), bottom), (1 << (dtype.bits - 1)) - 1)
        return np.asarray(rng.integers(bottom, top, shape, endpoint=True)).astype(dtype.np)
    return np.asarray(convert(np.asarray(rng.uniform(low, high, shape)), dtype))


def call(cls: type[Op], sample: Sample, dtypes: list[str]) -> tuple[Func, Op]:
    """A function of the sample's operands that returns the op's results."""
    types = [
        TensorType(DType(n), s) for s, n in zip(sample.shapes, dtypes, strict=True) if s is not None
    ]
    func = Func.make("main", types)
    args = iter(func.args)
    operands = [None if s is None else next(args) for s in sample.shapes]
    b = Builder(func.body)
    op = b.insert(cls(*operands, **sample.attrs))
    b.emit(Return, *op.results)
    return func, op


def cases() -> Iterator[Any]:
    for cls in classes():
        names = claimed(cls)
        for at, sample in enumerate(cls.samples):
            swept = names if at < 2 and not sample.dtypes else names[:1]
            for name in swept:
                yield pytest.param(
                    cls, sample, name, id=f"{cls.name}-{at}-{'+'.join(sample.dtypes) or name}"
                )


def close(actual: Array, expected: Array, dtype: DType, scale: float) -> None:
    """Equal; floats within a few roundings of the largest value."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    if dtype.is_float or dtype.kind == "complex":
        a, e = (
            v if dtype.kind == "complex" else widen(v).astype(np.float64)
            for v in (actual, expected)
        )
        bound = EPSILON.get(dtype.name, 3e-6)
        np.testing.assert_allclose(a, e, rtol=4 * bound, atol=bound * max(1.0, scale))
    else:
        np.testing.assert_array_equal(actual, expected)


def results(cls: type[Op], sample: Sample, values: list[Array | None]) -> list[Array]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = cls.evaluate(*values, **{a.name: v for a, v in bound_attributes(cls, sample, values)})
    return [np.asarray(v) for v in (out if isinstance(out, tuple) else (out,))]


def bound_attributes(
    cls: type[Op], sample: Sample, values: list[Array | None]
) -> list[tuple[Any, Any]]:
    """The attributes as the op holds them (canonical axes and the like)."""
    dtypes = [from_numpy(v.dtype).name if v is not None else "f32" for v in values]
    _, op = call(cls, sample, dtypes)
    return list(zip(cls.spec.attrs, op.attrs, strict=True))


def magnitude(values: list[Array | None]) -> float:
    sizes = [float(np.max(np.abs(widen(v).astype(np.float64)), initial=0.0)) for v in values
             if v is not None and v.dtype.kind not in "OcSU"]  # fmt: skip
    return max(sizes, default=1.0)


def replaced(cls: type[Op], sample: Sample, dtypes: list[str], how: str) -> Func:
    """The call, with the op replaced by its `generic` or its `decompose`."""
    func, op = call(cls, sample, dtypes)
    b = Builder(func.body, before=op)
    made = op.generic(b, *op.operands) if how == "generic" else op.decompose(b)
    op.replace_by(made if isinstance(made, tuple) else (made,))
    return func


@pytest.mark.parametrize(("cls", "sample", "name"), list(cases()))
def test_sample(cls: type[Op], sample: Sample, name: str) -> None:
    """`evaluate` gives what `infer` says; generic and decomposition agree; the text round trip
    holds.
    """
    dtypes = operand_dtypes(cls, sample, name)
    values = operand_values(sample, dtypes)
    func, op = call(cls, sample, dtypes)
    assert not dims_of([r.type for r in op.results]), "samples are free of symbols"
    expected = results(cls, sample, values)
    for value, array in zip(op.results, expected, strict=True):
        assert TensorType(from_numpy(array.dtype), array.shape) is value.type
    check_round_trip(func)
    inputs = [v for v in values if v is not None]
    for how in ("generic", "decompose"):
        if hasattr(cls, how):
            other = replaced(cls, sample, dtypes, how)
            check_round_trip(other)
            for value, got, want in zip(op.results, run(other, inputs), expected, strict=True):
                close(np.asarray(got), want, value.tensor.dtype, magnitude([*values, *expected]))


def violations() -> Iterator[Any]:
    for cls in classes():
        for at, (constraint, sample) in enumerate(getattr(cls, "rejects", ())):
            yield pytest.param(cls, constraint, sample, id=f"{cls.name}-{constraint}-{at}")


@pytest.mark.parametrize(("cls", "constraint", "sample"), list(violations()))
def test_constraint(cls: type[Op], constraint: str, sample: Sample) -> None:
    """A call that violates a numbered constraint is refused by its name."""
    with pytest.raises(Error) as caught:
        call(cls, sample, operand_dtypes(cls, sample, claimed(cls)[0]))
    assert f"({constraint})" in caught.value.message, caught.value.message


@pytest.mark.parametrize("cls", [pytest.param(c, id=c.name) for c in classes()])
def test_every_constraint_is_violated_once(cls: type[Op]) -> None:
    """Each (Ck) or "Ck:" of the docstring has a row in `rejects`."""
    stated = set(re.findall(r"\b(C\d+)\b", cls.__doc__ or ""))
    assert stated <= {constraint for constraint, _ in getattr(cls, "rejects", ())}


@pytest.mark.parametrize(
    # Ops that other test modules define are not the project's.
    "cls",
    [
        pytest.param(c, id=c.name)
        for c in OPS.values()
        if hasattr(c, "evaluate") and c.__module__.startswith("irc.")
    ],
)
def test_ops_that_evaluate_have_samples(cls: type[Op]) -> None:
    """No op escapes the matrix, but constants, ops with regions, and those whose result types data
    decides.
    """
    assert cls.samples or cls.spec.regions or cls.name == "const" or not cls.memoise
    assert cls.__doc__
    lowered = any([hasattr(cls, how) for how in ("generic", "decompose", "loops")])
    dissolved = cls.name in ("const", "recompute")  # by fusion: there is nothing to lower
    assert lowered or cls.spec.regions or dissolved or getattr(cls, "host", False)


SCALARS = [c for c in classes() if hasattr(c, "compute")]


@pytest.mark.parametrize("cls", [pytest.param(c, id=c.name) for c in SCALARS])
def test_elementwise_on_scalars(cls: type[Op]) -> None:
    """The kernel level uses the same classes: scalars give what arrays give."""
    sample = cls.samples[0]
    dtypes = operand_dtypes(cls, sample, claimed(cls)[0])
    arrays = [np.asarray(v)[:1].reshape(-1)[:1] for v in operand_values(sample, dtypes)]
    scalars = [v[0] for v in arrays]
    block = Func.make("f", [DType(n) for n in dtypes])
    op = cls(*block.args, **sample.attrs)
    got = np.asarray(cls.evaluate(*scalars, **op.attributes))
    want = np.asarray(cls.evaluate(*arrays, **op.attributes))
    assert got.shape == () and got.dtype == want.dtype == op.result.type.np  # type: ignore[attr-defined]
    np.testing.assert_array_equal(got, want[0])


def special(name: str, *values: float) -> Array:
    return convert(np.asarray(values, np.float64), DType(name))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("name", FLOATS[:4])
@pytest.mark.parametrize(
    ("op", "operands", "expected"),
    [
        ("min", ([1, NAN, INF], [NAN, 1, -INF]), [NAN, NAN, -INF]),
        ("max", ([1, NAN, INF], [NAN, 1, -INF]), [NAN, NAN, INF]),
        ("larger", ([1, NAN, INF, 2], [NAN, 1, -INF, 2]), [NAN, 1, INF, 2]),
        ("softmax", ([1, NAN, 2],), [NAN] * 3),
        ("softmax", ([INF, 1, 2],), [NAN] * 3),
        ("softmax", ([-INF, -INF],), [NAN] * 2),
        ("softmax", ([1, -INF, 1],), [0.5, 0, 0.5]),
        ("log_softmax", ([1, NAN, 2],), [NAN] * 3),
        ("sign", ([NAN, -INF, 0, 3],), [NAN, -1, 0, 1]),
        ("relu", ([NAN, -INF, INF],), [NAN, 0, INF]),
        ("div", ([1, -1, 0, INF], [0, 0, 0, INF]), [INF, -INF, NAN, NAN]),
        ("rem", ([7, -7, 7, 1, INF], [3, 3, -3, 0, 2]), [1, -1, 1, NAN, NAN]),
        ("mod", ([7, -7, 7, 1, 5], [3, 3, -3, 0, INF]), [1, 2, -2, NAN, 5]),
        ("pow", ([NAN, 1, -1, -8, 0], [0, NAN, INF, 0.5, -1]), [1, 1, 1, NAN, INF]),
        ("sqrt", ([-1, INF, 4],), [NAN, INF, 2]),
        ("log", ([-1, 0, INF, 1],), [NAN, -INF, INF, 0]),
        ("exp", ([-INF, INF, NAN, 0],), [0, INF, NAN, 1]),
        ("sigmoid", ([-INF, INF, NAN, 0],), [0, 1, NAN, 0.5]),
        ("softplus", ([-INF, INF, NAN],), [0, INF, NAN]),
        ("erf", ([-INF, INF, NAN, 0],), [-1, 1, NAN, 0]),
        ("sin", ([INF, NAN, 0],), [NAN, NAN, 0]),
        ("asin", ([2, -1.5, NAN, 0],), [NAN, NAN, NAN, 0]),
        ("acosh", ([1, 0.5, -INF, INF],), [0, NAN, NAN, INF]),
        ("atanh", ([1, -1, 2, 0],), [INF, -INF, NAN, 0]),
        ("sinh", ([INF, -INF, NAN],), [INF, -INF, NAN]),
        ("mish", ([-INF, INF, NAN, 0],), [NAN, INF, NAN, 0]),
        ("thresholded_relu", ([NAN, INF, -INF],), [0, INF, 0]),
        ("prelu", ([NAN, -2, INF], [2, 3, -1]), [NAN, -6, INF]),
        ("round_even", ([0.5, 1.5, -2.5, INF],), [0, 2, -2, INF]),
    ],
)
def test_special_values(name: str, op: str, operands: Any, expected: list[float]) -> None:
    """Infinities and NaN in all float types, by evaluate and by the decomposition."""
    values = [special(name, *v) for v in operands]
    sample = Sample(tuple([v.shape for v in values]))
    got = [results(OPS[op], sample, values)[0]]
    if hasattr(OPS[op], "decompose"):
        got += run(replaced(OPS[op], sample, [name] * len(values), "decompose"), values)
    for array in got:
        np.testing.assert_array_equal(widen(np.asarray(array)), np.asarray(expected, np.float32))


@pytest.mark.parametrize("name", INTS)
def test_integer_division(name: str) -> None:
    """Truncation toward zero, 0 for a zero divisor, wrapping at the least integer; x == (x/y)*y +
    rem.
    """
    dtype = DType(name)
    span = range(-8, 8) if dtype.kind == "int" else range(16)
    x, y = (np.asarray(v).reshape(-1) for v in np.meshgrid(list(span), list(span)))
    x, y = x.astype(dtype.np), y.astype(dtype.np)
    quotient, rest, floor = (
        widen(OPS[n].evaluate(x, y)).astype(int) for n in ("div", "rem", "mod")
    )
    xs, ys = widen(x).astype(int), widen(y).astype(int)
    safe = np.where(ys == 0, 1, ys)
    want = np.where(ys == 0, 0, np.sign(xs) * np.sign(ys) * (np.abs(xs) // np.abs(safe)))
    want = (
        convert(want, dtype).astype(int)
        if dtype.bits > 4
        else widen(want.astype(dtype.np)).astype(int)
    )
    np.testing.assert_array_equal(quotient, want)
    np.testing.assert_array_equal(rest, np.where(ys == 0, 0, np.fmod(xs, safe)))
    np.testing.assert_array_equal(floor, np.where(ys == 0, 0, np.mod(xs, safe)))


@pytest.mark.parametrize(
    ("source", "to", "values", "expected"),
    [
        ("f32", "i8", [1e9, -1e9, NAN, -1.9, 127.5], [127, -128, 0, -1, 127]),
        ("f64", "i64", [1e300, -1e300, 2.0**62], [2**63 - 1, -(2**63), 2**62]),
        ("f32", "u64", [1e30, -5, INF], [2**64 - 1, 0, 2**64 - 1]),
        ("bf16", "i4", [100, -100, 3], [7, -8, 3]),
        ("f64", "bf16", [1 + 2.0**-8 + 2.0**-40], [1 + 2.0**-7]),
        ("f64", "f8e5m2", [1e9, 1.124999999], [INF, 1.0]),
        ("f64", "f16", [1e6, 1 + 2.0**-11], [INF, 1.0]),
        ("f32", "bool", [0, NAN, 0.25], [0, 1, 1]),
    ],
)  # fmt: skip
def test_cast(source: str, to: str, values: list[float], expected: list[float]) -> None:
    """Saturation, NaN to 0, and one rounding only."""
    got = convert(convert(np.asarray(values, np.float64), DType(source)), DType(to))
    np.testing.assert_array_equal(got, np.asarray([DType(to).np.type(v) for v in expected]))


def test_wide_integer_to_bf16_rounds_once() -> None:
    tie = (1 << 62) + (1 << 54)  # half way between two bf16; the last bit decides
    got = convert(np.asarray([tie, tie + 1, -tie - 1]), DType("bf16")).astype(np.float64)
    np.testing.assert_array_equal(got, [2.0**62, 2.0**62 + 2.0**55, -(2.0**62) - 2.0**55])


def test_fma_rounds_once() -> None:
    """f64 against rational arithmetic; f32 where rounding twice differs."""
    from fractions import Fraction

    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 500))
    z = -x * y * (1 + 2.0**-50 * rng.integers(-4, 5, 500))
    got = OPS["fma"].evaluate(x, y, z)
    want = [float(Fraction(a) * Fraction(b) + Fraction(c)) for a, b, c in zip(x, y, z, strict=True)]
    np.testing.assert_array_equal(got, want)
    tiny = np.float64(2.0**-540)
    assert OPS["fma"].evaluate(tiny, tiny, np.float64(0)) == float(
        Fraction(2) ** -1080
    )  # still denormal
    one = np.float32(1 + 2.0**-12)  # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24: a tie that z breaks
    assert OPS["fma"].evaluate(one, one, np.float32(2.0**-80)) == np.float32(
        1 + 2.0**-11 + 2.0**-23
    )
    assert OPS["fma"].evaluate(one, one, np.float32(0)) == np.float32(1 + 2.0**-11)


def test_argmax_ties_and_nan() -> None:
    x = np.asarray([[1, 3, 3, 2], [NAN, 5, NAN, 5], [-INF] * 4], np.float32)
    for last, expected in ((False, [1, 0, 0]), (True, [2, 2, 3])):
        sample = Sample((x.shape,), attrs={"axis": 1, "select_last": last})
        np.testing.assert_array_equal(results(OPS["argmax"], sample, [x])[0], expected)
        np.testing.assert_array_equal(
            run(replaced(OPS["argmax"], sample, ["f32"], "generic"), [x])[0], expected
        )


def test_reductions_of_nothing() -> None:
    x = np.zeros((2, 0), np.float32)
    for name, expected in (
        ("sum", 0),
        ("prod", 1),
        ("max", -INF),
        ("min", INF),
        ("mean", NAN),
        ("log_sum_exp", -INF),
    ):
        sample = Sample((x.shape,), attrs={"axes": (1,)})
        np.testing.assert_array_equal(
            results(OPS[f"reduce_{name}"], sample, [x])[0], np.full(2, expected, np.float32)
        )
    assert OPS["reduce_max"].evaluate(x.astype(np.int8), axes=(1,))[0] == -128


def test_narrow_floats_accumulate_in_f32() -> None:
    """4096 ones in bf16 would stop growing at 256."""
    import ml_dtypes

    x = np.ones(4096, ml_dtypes.bfloat16)
    sample = Sample((x.shape,))
    assert results(OPS["reduce_sum"], sample, [x])[0] == 4096
    assert run(replaced(OPS["reduce_sum"], sample, ["bf16"], "generic"), [x])[0] == 4096


KNOWN = [
    ("gelu", {}, 1.0, 0.8413447460685429),
    ("gelu", {"form": "tanh"}, 1.0, 0.8411919906082768),
    ("silu", {}, 1.0, 0.7310585786300049),
    ("softplus", {}, 1.0, 1.3132616875182228),
    ("elu", {"alpha": 2.0}, -1.0, -1.2642411176571153),
    ("leaky_relu", {"alpha": 0.5}, -3.0, -1.5),
    ("hard_sigmoid", {}, 1.0, 0.7),
    ("hard_swish", {}, 1.0, 2 / 3),
    ("erf", {}, 0.5, 0.5204998778130465),
    ("sigmoid", {}, -2.0, 0.11920292202211755),
    ("celu", {"alpha": 2.0}, -1.0, -0.7869386805747332),
    ("selu", {}, -1.0, -1.1113307378125625),
    ("mish", {}, 1.0, 0.8650983882673103),
    ("softsign", {}, -3.0, -0.75),
    ("thresholded_relu", {"alpha": 2.0}, 1.5, 0.0),
    ("shrink", {"bias": 0.25, "lambd": 1.0}, -1.5, -1.25),
]


@pytest.mark.parametrize(("name", "attrs", "x", "expected"), KNOWN)
def test_known_values(name: str, attrs: Any, x: float, expected: float) -> None:
    """Published values: `evaluate` and `decompose` share constants, so judge neither alone."""
    got = results(OPS[name], Sample(((),), attrs=attrs), [np.asarray(x)])[0]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


TORCH = {
    "gelu": ("gelu", {}), "silu": ("silu", {}), "softplus": ("softplus", {}), "elu": ("elu", {}),
    "hard_swish": ("hardswish", {}), "relu": ("relu", {}), "softmax": ("softmax", {"dim": -1}),
    "log_softmax": ("log_softmax", {"dim": -1}), "celu": ("celu", {}), "selu": ("selu", {}),
    "mish": ("mish", {}), "softsign": ("softsign", {}),
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("name", TORCH)
def test_against_torch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    function, options = TORCH[name]
    x = np.linspace(-6, 6, 60, dtype=np.float32).reshape(5, 12)
    got = results(OPS[name], Sample((x.shape,)), [x])[0]
    want = getattr(torch.nn.functional, function)(torch.from_numpy(x), **options).numpy()
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


def test_values_are_values() -> None:
    """A `Value` given where an attribute is meant is refused by name."""
    func = Func.make("f", [TensorType(DType("f32"), (3,))])
    with pytest.raises(Error, match="no attribute"):
        Builder(func.body).relu(func.args[0], slope=Value(DType("f32"), func, 0))
