"""Export: the samples of every op go out and come back; names, dims, weights, opsets, errors."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irc
import irc.ir.ops  # noqa: F401  registers every op
from irc.frontends.onnx import census, export_onnx, load
from irc.frontends.onnx import export as export_module
from irc.frontends.onnx.export import NEWEST, OLDEST, TABLE, model_of
from irc.ir.blobs import Blob
from irc.ir.core import OPS, Builder, Value
from irc.ir.dims import sym
from irc.ir.errors import Error, UnsupportedError
from irc.ir.interpret import run
from irc.ir.ops.control import ForLoop, If, Scan, While
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.parse import parse
from irc.ir.types import DType, TensorType, boolean, f16, f32, i64
from irc.ir.verify import verify

REFUSED = {
    "avg_pool_grad", "conv_filter_grad", "dist.all_gather", "dist.all_reduce",
    "dist.all_reduce_start", "dist.all_reduce_wait", "dist.broadcast", "dist.gather_parts",
    "dist.part", "dist.rank", "dist.reduce_scatter", "dist.reduce_scatter_start",
    "dist.reduce_scatter_wait", "dropout", "max_pool_grad", "max_roi_pool_places", "pack", "unpack",
    "philox_bits", "philox_next", "random_normal", "random_uniform", "recompute", "requantize",
    "resample", "roi_align_grad", "roi_align_places", "sample_points", "scatter_points",
}  # fmt: skip
"""Ops that ONNX cannot say: layouts, kernels, random numbers of ours, gradients, what is computed
again, collectives.
"""
UNSAID = {
    ("cast", 82), ("pad", 4), ("quantize", 5), ("dequantize", 5), ("max_unpool", 1),
    ("max_unpool", 2),
}  # fmt: skip
"""Samples beyond ONNX: casts of complex numbers, images of mirror images, f64 scales, unpools
without spatial axes.
"""
STRUCTURE = {"const", "func", "fused", "generic", "launch", "module", "return", "yield"}
N, T = sym("N"), sym("T")


def _matrix() -> Any:
    """The tests of every op, whose operands these are as well."""
    path = Path(__file__).parents[2] / "ir" / "ops" / "test_ops.py"
    spec = importlib.util.spec_from_file_location("op_matrix", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MATRIX = _matrix()


def made(types: Sequence[Any], build: Callable[..., Any], outputs: Sequence[str] = ()) -> Module:
    """A module of one function; `build(b, *args)` gives its result or results."""
    names = [f"x{k}" for k in range(len(types))]
    func = Func.make("main", types, names, outputs=outputs)
    b = Builder(func.body)
    found = build(b, *func.args)
    b.emit(Return, *(found if isinstance(found, (tuple, list)) else (found,)))
    module = Module.make([func])
    verify(module)
    return module


def there_and_back(module: Module, inputs: Sequence[Any], opset: int | None = None) -> Any:
    """Run a module and what its export imports to; compare; the message."""
    proto = model_of(module, opset)
    again = load(proto)
    verify(again)
    want, got = run(module.main, list(inputs)), run(again.main, list(inputs))
    for x, y in zip(want, got, strict=True):
        wide = np.complex128 if x.dtype.kind == "c" else np.float64
        assert x.dtype == y.dtype and x.shape == y.shape
        close = 2e-2 if x.dtype.itemsize < 4 and x.dtype.kind not in "iub" else 2e-5
        np.testing.assert_allclose(y.astype(wide), x.astype(wide), rtol=close, atol=close)
    return proto


def nodes(proto: Any) -> Counter[str]:
    """Nodes of the main graph by type."""
    return Counter(node.op_type for node in proto.graph.node)


def random(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(3).standard_normal(shape).astype(dtype)


# ---- every op


def test_every_op_has_a_row_or_parts_or_a_reason() -> None:
    ops = {
        n: c
        for n, c in OPS.items()
        if c.__module__.startswith("irc.") and not n.startswith("loop.") and n not in STRUCTURE
    }
    lost = {n for n, c in ops.items() if n not in TABLE and not hasattr(c, "decompose")}
    assert lost <= REFUSED, f"no export row: {sorted(lost - REFUSED)}"
    assert set(TABLE) <= set(OPS), f"rows of no op: {sorted(set(TABLE) - set(OPS))}"


def _samples() -> list[Any]:
    return [
        pytest.param(cls, at, id=f"{cls.name}-{at}")
        for cls in MATRIX.classes()
        if cls.name not in REFUSED and not cls.name.startswith(("loop.", "instr."))
        for at, sample in enumerate(cls.samples)
        if not any([sample.attrs.get(k) for k in ("channel_block", "in_block")])
    ]


@pytest.mark.parametrize(("cls", "at"), _samples())
def test_the_samples_of_every_op(cls: Any, at: int) -> None:
    sample = cls.samples[at]
    dtypes = MATRIX.operand_dtypes(cls, sample, MATRIX.claimed(cls)[0])
    func, _ = MATRIX.call(cls, sample, dtypes)
    func.set_attr("inputs", tuple([f"x{k}" for k in range(len(func.args))]))
    given = [v for v in MATRIX.operand_values(sample, dtypes) if v is not None]
    if (cls.name, at) in UNSAID:
        with pytest.raises(Error, match="E01"):
            model_of(Module.make([func]))
        return
    with np.errstate(all="ignore"):
        there_and_back(Module.make([func]), given)


# ---- several ops in one node


def conv_bias(b: Builder, x: Value) -> Value:
    y = b.conv(x, b.insert(Const(random(4, 3, 3, 3))).result, pads=(1, 1, 1, 1))
    return b.relu(b.add(y, b.insert(Const(random(4, 1, 1))).result))


def linear(b: Builder, x: Value) -> Value:
    flat = b.reshape(x, shape=(2, 75))
    w = b.transpose(b.insert(Const(random(7, 75))).result, perm=(1, 0))
    return b.add(b.matmul(flat, w), b.insert(Const(random(7))).result)


def scale_shift(b: Builder, x: Value) -> Value:
    s, t = [b.insert(Const(random(3, 1, 1))).result for _ in range(2)]
    return b.add(b.mul(x, s), t)


def shared_out(b: Builder, x: Value) -> Value:
    cuts = [b.slice(x, starts=(0, 0, k, 0), sizes=(2, 3, n, 5)) for k, n in ((0, 2), (2, 3))]
    return b.concat(*cuts, axis=2)


def picked(b: Builder, x: Value) -> Value:
    return b.reshape(b.slice(x, starts=(0, 2, 0, 0), sizes=(2, 1, 5, 5)), shape=(2, 5, 5))


def pooled(b: Builder, x: Value) -> Value:
    return b.reduce_mean(x, axes=(2, 3), keepdims=True)


@pytest.mark.parametrize(
    ("build", "want"),
    [
        (conv_bias, {"Conv": 1, "Relu": 1}),
        (linear, {"Reshape": 1, "Gemm": 1}),
        (scale_shift, {"BatchNormalization": 1}),
        (shared_out, {"Split": 1, "Concat": 1}),
        (picked, {"Gather": 1}),
        (pooled, {"GlobalAveragePool": 1}),
    ],
)
def test_ops_that_are_one_node(build: Any, want: dict[str, int]) -> None:
    module = made([TensorType(f32, (2, 3, 5, 5))], build)
    assert nodes(there_and_back(module, [random(2, 3, 5, 5)])) == want


def quantized_model(zeros: Any = 128) -> Any:
    """A product as dynamic quantization makes it."""
    node = onnx.helper.make_node
    made = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z", "wz"], ["i"]),
        node("Cast", ["i"], ["f"], to=1),
        node("Mul", ["f", "s"], ["y"]),
    ]
    info = onnx.helper.make_tensor_value_info
    weights = np.random.default_rng(0).integers(0, 255, (8, 5), np.uint8)
    constants = {"w": weights, "wz": np.asarray(zeros, np.uint8)}
    graph = onnx.helper.make_graph(
        made, "g", [info("x", 1, [3, 8])], [info("y", 1, [3, 5])],
        [onnx.numpy_helper.from_array(a, n) for n, a in constants.items()],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])


@pytest.mark.parametrize("zeros", [128, [1, 2, 3, 4, 5]])
def test_dynamic_quantization_is_found_again(zeros: Any) -> None:
    proto = there_and_back(load(quantized_model(zeros)), [random(3, 8)])
    assert nodes(proto) == {"DynamicQuantizeLinear": 1, "MatMulInteger": 1, "Cast": 1, "Mul": 1}


def test_zero_points_of_every_element_stay_a_difference() -> None:
    def build(b: Builder, x: Value) -> Value:
        zeros = np.random.default_rng(0).integers(0, 9, (3, 8), np.int32)
        less = b.sub(b.cast(x, to=DType("i32")), b.insert(Const(zeros)).result)
        w = np.random.default_rng(1).integers(-9, 9, (8, 5), np.int32)
        return b.matmul(less, b.insert(Const(w)).result)

    x = np.random.default_rng(2).integers(0, 255, (3, 8), np.uint8)
    proto = there_and_back(made([TensorType(DType("u8"), (3, 8))], build), [x])
    assert nodes(proto) == {"Cast": 1, "Sub": 1, "MatMul": 1}


def test_a_value_that_others_use_keeps_its_node() -> None:
    def build(b: Builder, x: Value) -> list[Value]:
        y = b.conv(x, b.insert(Const(random(4, 3, 3, 3))).result)
        return [y, b.add(y, b.insert(Const(random(4, 1, 1))).result)]

    module = made([TensorType(f32, (2, 3, 5, 5))], build)
    assert nodes(there_and_back(module, [random(2, 3, 5, 5)])) == {"Conv": 1, "Add": 1}


# ---- symbolic dims


def test_dims_stay_symbolic() -> None:
    def build(b: Builder, x: Value) -> list[Value]:
        joined = b.reshape(x, shape=(N * T, 4))
        last = b.slice(x, starts=(0, T - 1, 0), sizes=(N, 1, 4))
        spread = b.broadcast_to(last, shape=(N, T, 4))
        count = b.cast(b.dim_value(dim=N * T + 2), to=f32)
        halves = b.reshape(b.reshape(x, shape=(N, 4 * T)), shape=(N, 2 * T, 2))
        halves = b.mul(halves, b.reshape(joined, shape=(N, 2 * T, 2)))
        back = b.slice(x, starts=(0, T - 1, 0), sizes=(N, T, 4), steps=(1, -1, 1))
        return [b.add(b.add(spread, back), count), halves, b.iota(shape=(T, 2), axis=0)]

    module = made([TensorType(f32, (N, T, 4))], build, ["a", "b", "c"])
    for extents in ((2, 3, 4), (1, 1, 4), (3, 5, 4)):
        proto = there_and_back(module, [random(*extents)])
    said = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert said == ["N", "T", 4]
    assert [o.name for o in proto.graph.output] == ["a", "b", "c"]


def test_dims_of_an_expression_are_solved() -> None:
    def build(b: Builder, x: Value) -> Value:
        return b.broadcast_to(b.reduce_sum(x, axes=(0,), keepdims=True), shape=(N, 3))

    module = made([TensorType(f32, (2 * N + 1, 3))], build)
    proto = model_of(module)
    assert {"Shape", "Sub", "Div"} <= set(nodes(proto))


def test_a_dim_that_no_input_tells_is_refused() -> None:
    module = made([TensorType(f32, ())], lambda b, x: b.broadcast_to(x, shape=(N,)))
    with pytest.raises(UnsupportedError, match="E0118"):
        model_of(module)


# ---- control flow


def counted(b: Builder, x: Value) -> Value:
    y = b.mul(x, x)  # seen from inside
    body = lambda b, i, c: [b.add(c, b.mul(y, b.cast(i, to=f32)))]  # noqa: E731
    return b.insert(ForLoop.make(5, [x], body)).result


def doubled(b: Builder, x: Value) -> Value:
    def before(b: Builder, c: Value) -> list[Value]:
        return [b.lt(b.reduce_max(c), b.insert(Const(np.float32(9))).result)]

    return b.insert(While.make([x], before, lambda b, c: [b.add(c, c)], max_trip=8)).result


def chosen(b: Builder, x: Value) -> Value:
    flag = b.gt(b.reduce_sum(x), b.insert(Const(np.float32(0))).result)
    return b.insert(If.make(flag, lambda b: [b.neg(x)], lambda b: [x])).result


def scanned(reverse: bool) -> Callable[[Builder, Value], list[Value]]:
    def build(b: Builder, x: Value) -> list[Value]:
        start = b.insert(Const(np.zeros(3, np.float32))).result
        body = lambda b, c, x: [b.add(c, x), b.mul(c, x)]  # noqa: E731
        return list(b.insert(Scan.make([start], [x], body, reverse=reverse)).results)

    return build


def stacked(b: Builder, x: Value) -> list[Value]:
    row = b.reduce_sum(x, axes=(0,))
    made = Scan.make([row], [], lambda b, c: [b.add(c, c), c], length=4, reverse=True)
    return list(b.insert(made).results)


@pytest.mark.parametrize(
    ("build", "kind"),
    [(counted, "Loop"), (doubled, "Loop"), (chosen, "If"), (scanned(False), "Scan"),
     (scanned(True), "Scan"), (stacked, "Loop")],
)  # fmt: skip
def test_control_flow(build: Any, kind: str) -> None:
    module = made([TensorType(f32, (4, 3))], build)
    assert nodes(there_and_back(module, [np.abs(random(4, 3))]))[kind] == 1


# ---- files


def test_the_file_and_its_names(tmp_path: Path) -> None:
    def build(b: Builder, x: Value, y: Value) -> list[Value]:
        z = b.add(x, y)
        return [z, x, z, b.insert(Const(np.float32(3))).result]

    types = [TensorType(f32, (2,))] * 2
    module = made(types, build, ["sum", "same", "again", "three"])
    path = tmp_path / "m.onnx"
    assert irc.export_onnx(module, path, metadata={"made for": "tests"}) == 17
    proto = onnx.load(path)
    assert [v.name for v in proto.graph.input] == ["x0", "x1"]
    assert [v.name for v in proto.graph.output] == ["sum", "same", "again", "three"]
    assert proto.producer_name == "irc" and proto.metadata_props[0].value == "tests"
    got = run(load(path).main, [np.ones(2, "f4"), np.ones(2, "f4")])
    assert [float(v.reshape(-1)[0]) for v in got] == [2.0, 1.0, 2.0, 3.0]
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_an_input_that_is_an_output_and_an_output_listed_twice_stay(tmp_path: Path) -> None:
    tensor = onnx.helper.make_tensor_value_info
    x, y = (tensor(name, onnx.TensorProto.FLOAT, [2, 3]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y, x])
    graph.output.append(y)
    source = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    proto = model_of(load(source.SerializeToString()))
    assert [o.name for o in proto.graph.output] == ["y", "x", "y"]
    assert [n.op_type for n in proto.graph.node] == ["Relu"]
    onnx.checker.check_model(proto)


def test_extents_that_a_rounded_scale_would_miss() -> None:
    def build(b: Builder, x: Value) -> Value:
        return b.resize(x, axes=(2, 3), sizes=(7, 9), scales=(7 / 5, 9 / 6), mode="linear")

    there_and_back(made([TensorType(f32, (1, 2, 5, 6))], build), [random(1, 2, 5, 6)])


def test_large_weights_lie_beside_the_model(tmp_path: Path) -> None:
    w = random(64, 64)

    def build(b: Builder, x: Value) -> Value:
        return b.matmul(x, b.insert(Const(w)).result)

    module = made([TensorType(f32, (2, 64))], build)
    path = tmp_path / "big.onnx"
    export_onnx(module, path, external_bytes=1000)
    assert {p.name for p in tmp_path.iterdir()} == {"big.onnx", "big.onnx.data"}
    assert path.stat().st_size < 2000 < census(path).bytes
    x = random(2, 64)
    np.testing.assert_array_equal(run(load(path).main, [x])[0], run(module.main, [x])[0])


def test_equal_constants_are_stored_once() -> None:
    def build(b: Builder, x: Value) -> Value:
        big = Blob(random(100, 200))
        one, two = [b.insert(Const(big)).result for _ in range(2)]
        small, other = [b.insert(Const(np.ones(200, "f4"))).result for _ in range(2)]
        return b.mul(b.add(b.add(x, one), b.add(small, two)), other)

    proto = model_of(made([TensorType(f32, (100, 200))], build))
    assert len(proto.graph.initializer) == 2


def test_one_number_repeated_stays_one_number() -> None:
    def build(b: Builder, x: Value) -> Value:
        half = b.insert(Const(np.float32(0.5))).result
        return b.matmul(x, b.broadcast_to(half, shape=(1000, 1000)))

    proto = there_and_back(made([TensorType(f32, (1, 1000))], build), [random(1, 1000)])
    assert nodes(proto)["ConstantOfShape"] == 1 and proto.ByteSize() < 1000


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    module = made([TensorType(f32, (2,))], lambda b, x: b.neg(x))
    table = {**TABLE, "neg": lambda p: p.node("Neg", p.x(), alpha=1.0)}
    monkeypatch.setattr(export_module, "TABLE", table)
    with pytest.raises(Error, match="E0121"):
        export_onnx(module, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


# ---- opsets and errors


@pytest.mark.parametrize("opset", range(OLDEST, NEWEST + 1))
def test_every_opset(opset: int) -> None:
    def build(b: Builder, x: Value) -> Value:
        y = b.layer_norm(b.gelu(x), axis=2)
        return b.reduce_mean(b.gelu(y, form="tanh"), axes=(1,))

    module = made([TensorType(f32, (2, 3, 4))], build)
    proto = there_and_back(module, [random(2, 3, 4)], opset)
    assert proto.opset_import[0].version == opset
    assert ("Gelu" in nodes(proto)) == (opset >= 20)


def test_the_oldest_opset_that_can_say_it() -> None:
    def written(build: Any) -> int:
        return int(model_of(made([TensorType(f32, (2, 4))], build)).opset_import[0].version)

    assert written(lambda b, x: b.exp(x)) == 17
    assert written(lambda b, x: b.mish(x)) == 18
    assert written(lambda b, x: b.gelu(x)) == 20
    assert written(lambda b, x: b.cast(x, to=DType("u4"))) == 21
    assert written(lambda b, x: b.bitcast(x, to=DType("i32"))) == 26


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (lambda b, x: b.cast(x, to=DType("i12")), "E0119"),
        (lambda b, x: b.pack(x, axes=(1,), blocks=(4,)), "E0118"),
        (lambda b, x: b.pad(x, low=(5, 0), high=(0, 0), mode="reflect"), "E0118"),
    ],
)
def test_what_onnx_cannot_say(build: Any, code: str) -> None:
    with pytest.raises(UnsupportedError, match=code):
        model_of(made([TensorType(f32, (3, 8))], build))


def test_opsets_that_do_not_do() -> None:
    module = made([TensorType(f32, (3, 8))], lambda b, x: b.bitcast(x, to=DType("i32")))
    for opset in (7, NEWEST + 1, 20):
        with pytest.raises(Error, match="E0120"):
            model_of(module, opset)


def test_a_lowered_function_is_refused() -> None:
    text = "func @main(%x: f32[2]) -> f32[2] {\n  %0 = neg(%x) : f32[2]\n  return %0\n}\n"
    module = parse(text)
    module.main.set_attr("kind", "plan")
    with pytest.raises(Error, match="E0118"):
        model_of(module)


@pytest.mark.parametrize("mask", [(2, 1, 1, 5), (1, 5), (5,), (2, 3, 4, 5)])
def test_masks_of_attention_have_the_extents_of_the_scores(mask: tuple[int, ...]) -> None:
    shapes = [(2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 8)]

    def build(b: Builder, *given: Value) -> Value:
        return b.attention(*given)

    module = made([*[TensorType(f32, s) for s in shapes], TensorType(boolean, mask)], build)
    inputs = [*[random(*s) for s in shapes], np.arange(np.prod(mask)).reshape(mask) % 3 > 0]
    proto = model_of(module)
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    found = session.run(None, dict(zip(names, inputs, strict=True)))
    np.testing.assert_allclose(found[0], run(module.main, inputs)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.bench
@pytest.mark.parametrize("build", [conv_bias, linear, counted, doubled, chosen, scanned(True)])
def test_onnxruntime_agrees(build: Any) -> None:
    ort = pytest.importorskip("onnxruntime")
    shape = (2, 3, 5, 5) if build in (conv_bias, linear) else (4, 3)
    module = made([TensorType(f32, shape)], build)
    x = np.abs(random(*shape))
    proto = model_of(module).SerializeToString()
    session = ort.InferenceSession(proto, providers=["CPUExecutionProvider"])
    for got, want in zip(session.run(None, {"x0": x}), run(module.main, [x]), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_half_precision_and_integers() -> None:
    def build(b: Builder, x: Value, i: Value) -> Value:
        return b.add(b.softmax(x), b.cast(b.take(i, b.iota(shape=(3,)), axis=0), to=f16))

    types = [TensorType(f16, (2, 3)), TensorType(i64, (4,))]
    there_and_back(made(types, build), [random(2, 3, dtype=np.float16), np.arange(4)])
