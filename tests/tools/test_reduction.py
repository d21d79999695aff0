"""`irc reduce`: planted faults are cornered, the failure stays the same, files are whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import irc
from irc.backends import compiler
from irc.backends.targets import choose
from irc.frontends.onnx.shrink import OnnxProgram
from irc.ir.core import Block, Builder
from irc.ir.errors import Error
from irc.ir.ops.control import If
from irc.ir.ops.core import Const, Func, Module, Return, Yield
from irc.ir.types import TensorType, boolean, f32
from irc.passes.cse import Cse
from irc.passes.pipeline import Options
from irc.tools.bench.models import small_cnn
from irc.tools.main import run
from irc.tools.program_module import ModuleProgram
from irc.tools.reduction import Program, Search
from irc.tools.resize import resized
from irc.tools.verdicts import Conditions, Judge, Verdict, command_verdict, inputs_of, judge

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
GIVEN = Conditions(threads=1)


def network() -> Module:
    """x [4, 8] to two outputs, by two products with tanh, exp and a softmax between."""
    rng = np.random.default_rng(5)
    func = Func.make("main", [TensorType(f32, (4, 8))], ["x"], outputs=["y", "z"])
    b = Builder(func.body)

    def weight(*shape: int):  # type: ignore[no-untyped-def]
        return b.insert(Const((rng.standard_normal(shape) / 3).astype("f4"))).result

    h = b.tanh(b.matmul(func.args[0], weight(8, 12)))
    z = b.exp(h)
    flat = b.reshape(b.add(b.softmax(z, axis=1), h), shape=(2, 24))
    b.emit(Return, b.relu(b.matmul(flat, weight(24, 3))), b.neg(z))
    return Module.make([func])


def program(module: Module) -> ModuleProgram:
    return ModuleProgram(module, lambda fields: inputs_of(fields, GIVEN))


def reduced(start: Program, fails: Callable[[Program], bool]) -> tuple[Program, int]:
    search = Search(fails, lambda text: None)
    return search.reduce(start), search.tries


def names(found: Program) -> list[str]:
    assert isinstance(found, ModuleProgram)
    return [op.name for op in found.ops]


# The search --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [{"tanh"}, {"exp", "softmax"}, {"matmul"}, {"neg", "relu"}])
def test_only_what_the_failure_needs_stays(wanted: set[str]) -> None:
    found, tries = reduced(program(network()), lambda p: wanted <= set(names(p)))
    assert set(names(found)) == wanted
    assert len(names(found)) == len(wanted)
    assert 0 < tries < 80


def test_extents_and_weights_become_small() -> None:
    found, _ = reduced(program(network()), lambda p: "matmul" in names(p))
    assert isinstance(found, ModuleProgram)
    shapes = [v.type for op in found.ops for v in (*op.operands, *op.results)]
    assert {str(t) for t in shapes} == {"f32[1, 1]"}


def test_the_same_model_gives_the_same_result() -> None:
    texts = [str(reduced(program(network()), lambda p: "exp" in names(p))[0].module) for _ in "ab"]  # type: ignore[attr-defined]
    assert texts[0] == texts[1]


def test_the_number_of_checks_is_bounded() -> None:
    search = Search(lambda p: "tanh" in names(p), lambda text: None, most=3)
    search.reduce(program(network()))
    assert search.tries == 3


def test_every_edit_gives_a_program_that_runs() -> None:
    """Each single edit of each kind: what verifies also runs, and has fewer places than before."""
    start = program(network())
    made = 0
    for kind in ("outputs", "weights", "end", "inputs", "bypass", "constants", "extents"):
        for k in range(start.atoms(kind)):
            found = start.edited(kind, [k])
            if found is None:
                continue
            made += 1
            if kind not in ("end", "extents"):
                assert found.atoms(kind) < start.atoms(kind), kind
            main = found.module.main
            fields = [(n, v.type) for n, v in zip(main.inputs, main.args, strict=True)]
            assert irc.compile(found.module, target="reference").run(inputs_of(fields, GIVEN))
    assert made > 30


def test_regions_and_branches_open() -> None:
    """A fused program, and one with an if, are reduced to an op inside; else they stay closed."""
    fused = compiler.lower(network(), choose("cpu", 1), Options(to_phase="fused")).module
    assert set(names(program(fused))) <= {"fused", "reshape"}
    inside = lambda p: any(op.name == "tanh" for op in p.module.main.walk())  # noqa: E731
    assert names(reduced(program(fused), inside)[0]) == ["tanh"]
    closed = reduced(program(fused), lambda p: inside(p) and "fused" in names(p))[0]
    assert names(closed) == ["fused"]

    func = Func.make("main", [TensorType(boolean, ()), TensorType(f32, (3,))], ["c", "x"])
    b = Builder(func.body)
    branches = [Block(), Block()]
    for block, op in zip(branches, ("exp", "tanh"), strict=True):
        inner = Builder(block)
        inner.emit(Yield, getattr(inner, op)(func.args[1]))
    made = b.insert(If(func.args[0], regions=branches))
    b.emit(Return, b.neg(made.result))
    module = Module.make([func])
    assert names(reduced(program(module), inside)[0]) == ["tanh"]


def test_an_extent_shrinks_through_a_reshape() -> None:
    made = resized(network(), 12, 6)
    assert made is not None
    assert [str(v.type) for v in made.main.returned] == ["f32[2, 3]", "f32[4, 6]"]

    func = Func.make("main", [TensorType(f32, (4, 12))], ["x"])
    b = Builder(func.body)
    b.emit(Return, b.reshape(func.args[0], shape=(3, 16)))
    assert resized(Module.make([func]), 12, 5) is None  # 20 elements are in no row of 3 or 16


# Planted faults ----------------------------------------------------------------------------------


def broken_cse(monkeypatch: Patch, fault: Callable[[Module], None]) -> None:
    right = Cse.run

    def run_wrong(self: Cse, module: Module) -> Module:
        fault(module)
        return right(self, module)

    monkeypatch.setattr(Cse, "run", run_wrong)


def cornered(start: Program, path: Path) -> tuple[Program, Verdict]:
    """Reduced by the built-in check in this process, which sees what is patched here."""
    start.save(path)
    first = judge(str(path), GIVEN)

    def fails(p: Program) -> bool:
        p.save(path)
        return first.same(judge(str(path), GIVEN, first.stage))

    return reduced(start, fails)[0], first


def test_a_crash(tmp_path: Path, monkeypatch: Patch) -> None:
    def fault(module: Module) -> None:
        if any(op.name == "softmax" for op in module.main.walk()):
            raise KeyError("softmax")

    broken_cse(monkeypatch, fault)
    found, first = cornered(program(network()), tmp_path / "m.irc")
    assert (first.kind, first.stage) == ("crash", "compile")
    assert first.key.startswith("KeyError in ")
    assert names(found) == ["softmax"]


def test_an_error(tmp_path: Path, monkeypatch: Patch) -> None:
    def fault(module: Module) -> None:
        for op in module.main.walk():
            if op.name in ("tanh", "relu"):
                raise Error({"tanh": "E0998", "relu": "E0999"}[op.name], "planted")

    broken_cse(monkeypatch, fault)
    found, first = cornered(program(network()), tmp_path / "m.irc")
    assert (first.kind, first.key) == ("error", "E0998")
    assert names(found) == ["tanh"]


def test_a_mismatch(tmp_path: Path, monkeypatch: Patch) -> None:
    def fault(module: Module) -> None:
        for op in list(module.main.walk()):
            if op.name == "neg":
                op.replace_by([op.operands[0]])

    broken_cse(monkeypatch, fault)
    for start in (program(network()), OnnxProgram(cnn("Neg"))):
        path = tmp_path / ("m.irc" if isinstance(start, ModuleProgram) else "m.onnx")
        found, first = cornered(start, path)
        assert (first.kind, first.stage) == ("mismatch", "compare")
        assert found.size == 1
        found.save(path)
        assert "neg" in str(irc.load(path))


# ONNX --------------------------------------------------------------------------------------------


def cnn(op: str = "Frobnicate") -> onnx.ModelProto:
    """The small network with another op in the place of its second relu."""
    made = small_cnn()
    relus = [n for n in made.graph.node if n.op_type == "Relu"]
    relus[-1].op_type = op
    return made


def test_an_onnx_model_that_cannot_be_read(tmp_path: Path, capsys: Capture) -> None:
    onnx.save(cnn(), str(tmp_path / "bad.onnx"))
    goal = tmp_path / "small.onnx"
    assert run(["reduce", str(tmp_path / "bad.onnx"), "-o", str(goal), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["after"] == 1 < facts["before"] == 9
    assert "E0101" in facts["failure"]
    small = onnx.load(str(goal))
    assert [n.op_type for n in small.graph.node] == ["Frobnicate"]
    assert not small.graph.initializer
    assert goal.stat().st_size < 200


def test_every_edit_of_a_graph_is_a_model() -> None:
    start = OnnxProgram(cnn("Relu"))
    made = 0
    for kind in ("outputs", "weights", "end", "inputs", "bypass"):
        for k in range(start.atoms(kind)):
            found = start.edited(kind, [k])
            if found is not None:
                onnx.checker.check_model(found.proto)
                irc.load(found.proto.SerializeToString())
                made += 1
    assert made > 15
    assert start.proto == cnn("Relu")


def test_names_inside_branches_count() -> None:
    """A value that only a branch reads is not swept away, and becomes an input when cut."""
    branch = helper.make_graph(
        [helper.make_node("Neg", ["h"], ["b"])], "b", [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Exp", ["x"], ["h"]),
            helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    start = OnnxProgram(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    found = start.edited("inputs", [0])
    assert found is not None
    assert [v.name for v in found.graph.input] == ["c", "h"]
    assert start.edited("inputs", [1]) is None  # it makes an output


def test_shapes_settle_the_inputs(tmp_path: Path) -> None:
    onnx.save(cnn("Relu"), str(tmp_path / "m.onnx"))
    found = OnnxProgram.read(tmp_path / "m.onnx", {"x": (3, 1, 28, 28)})
    assert [d.dim_value for d in found.graph.input[0].type.tensor_type.shape.dim] == [3, 1, 28, 28]
    with pytest.raises(Error, match="E0100"):
        OnnxProgram.read(tmp_path / "none.onnx")


def test_smaller_extents_of_a_graph() -> None:
    start = OnnxProgram(cnn("Relu"))
    found = start.edited("extents", [start.extents.index((28, 14))])
    assert found is not None
    assert [d.dim_value for d in found.graph.input[0].type.tensor_type.shape.dim] == [1, 1, 14, 14]
    found = start.edited("weights", range(start.atoms("weights")))
    assert found is not None
    arrays = [numpy_helper.to_array(t) for t in found.graph.initializer]
    assert all([(a == a.flat[0]).all() for a in arrays])


# Verdicts ----------------------------------------------------------------------------------------


def test_the_judge_outlives_its_process(archive: Path) -> None:
    with Judge(GIVEN) as court:
        assert court(str(archive)).kind == "ok"
        court.process.kill()
        assert court(str(archive)) == Verdict("died", "SIGKILL")
        assert court(str(archive.with_name("none.irc"))).key == "E0101"
        court.seconds = 0.0
        assert court(str(archive)).kind == "hang"


@pytest.mark.parametrize(
    ("command", "kind", "key"),
    [
        ("test -f {}", "ok", ""),
        ("exit 3 # {}", "exit", "3"),
        ("echo 'error[E0101]: x' >&2; exit 1 # {}", "exit", "1 E0101"),
        ("echo 'internal error: KeyError: x' >&2; exit 70 # {}", "exit", "70 KeyError"),
        ("sleep 5 # {}", "hang", ""),
    ],
)
def test_commands(archive: Path, command: str, kind: str, key: str) -> None:
    found = command_verdict(command, str(archive), 0.5)
    assert (found.kind, found.key) == (kind, key)


def test_a_command_decides(archive: Path, tmp_path: Path, capsys: Capture) -> None:
    goal = tmp_path / "small.ir"
    line = ["reduce", str(archive), "-o", str(goal), "--check", "! grep -q matmul {}", "--json"]
    assert run(line) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["before"], facts["after"]) == (3, 1)
    assert goal.read_text().count("matmul") == 1


def test_inputs_of_a_file_stay_while_they_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.full((2, 2), 7, np.float32))
    given = Conditions(input_file=str(tmp_path / "in.npz"))
    fields = [("x", TensorType(f32, (2, 2))), ("cut0", TensorType(f32, (1,)))]
    assert (inputs_of(fields, given)["x"] == 7).all()
    assert inputs_of([("x", TensorType(f32, (2, 1)))], given)["x"].shape == (2, 1)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["{m}", "-o", "{d}/s.irc"], 1, "E0536"),
        (["{m}", "-o", "{d}/s.onnx"], 1, "E0535"),
        (["{m}", "-o", "{d}/s.txt"], 1, "E0535"),
        (["{m}", "-o", "{d}/none/s.irc"], 1, "E0264"),
        (["{m}", "-o", "{d}/s.irc", "--check", "nonsense"], 2, "--check is"),
        (["{m}"], 2, "--output"),
        (["none.irc", "-o", "{d}/s.irc"], 1, "E0101"),
    ],
)
def test_mistakes(
    args: list[str], code: int, says: str, archive: Path, tmp_path: Path, capsys: Capture
) -> None:
    line = [a.format(m=archive, d=tmp_path) for a in args]
    assert run(["reduce", *line]) == code
    captured = capsys.readouterr()
    assert says in captured.err and "Traceback" not in captured.err
    assert not (tmp_path / "s.irc").exists()
