"""The pipeline: phases, dumps, reproducers, shape specialisation, what is noted on the way."""

import dataclasses
import gc
from pathlib import Path

import numpy as np
import pytest

from irc.ir.archive import load
from irc.ir.core import Builder
from irc.ir.dims import sym
from irc.ir.errors import Error, VerifyError
from irc.ir.interpret import run
from irc.ir.ops.core import Const, Func, Fused, Generic, Module, Return
from irc.ir.ops.plan import Launch
from irc.ir.target import Target
from irc.ir.text import print_op
from irc.ir.types import TensorType, f32
from irc.passes import pipeline
from irc.passes.cse import Cse
from irc.passes.options import PASSES, Pass
from irc.passes.pipeline import PHASES, Compiled, Options, compile_module, run_passes, specialise

PLAIN = Target("plain")


def network(rows: object = None) -> Module:
    """relu(x @ w + c), then a softmax."""
    rng = np.random.default_rng(1)
    func = Func.make("main", [TensorType(f32, (rows or sym("N"), 8))], ["x"])  # type: ignore[arg-type]
    b = Builder(func.body)
    w = b.insert(Const(rng.standard_normal((8, 5)).astype(np.float32))).result
    c = b.insert(Const(rng.standard_normal(5).astype(np.float32))).result
    b.emit(Return, b.softmax(b.relu(b.add(b.matmul(func.args[0], w), c)), axis=1))
    return Module.make([func])


X = np.random.default_rng(2).standard_normal((3, 8)).astype(np.float32)


@pytest.mark.parametrize("phase", PHASES[:-1])
def test_each_phase_computes_the_same(phase: str) -> None:
    module = network()
    made = compile_module(module, PLAIN, Options(to_phase=phase, verify_each=True))
    np.testing.assert_allclose(run(made.module, [X])[0], run(module, [X])[0], atol=1e-6)


def test_the_phases_hold_what_they_promise() -> None:
    at = {p: compile_module(network(), PLAIN, Options(to_phase=p)) for p in PHASES}
    fused = [type(op) for op in at["fused"].module.main.body if not op.terminator]
    assert set(fused) == {Const, Fused}
    inside = [op for op in at["generic"].module.walk() if isinstance(op.parent_op, Fused)]
    assert all([isinstance(op, (Generic, Const)) or op.terminator for op in inside])
    assert [f.kind for f in at["loops"].module.funcs] == ["func", "kernel", "kernel"]
    assert sum([isinstance(op, Launch) for op in at["loops"].module.walk()]) == 2
    planned = at["planned"].planned
    assert planned is not None and planned.func.kind == "plan" and len(planned.kernels) == 2
    assert all([at[p].planned is None for p in PHASES[:-1]])


def test_the_module_given_is_not_changed() -> None:
    module = network()
    text = print_op(module)
    compile_module(module, PLAIN)
    assert print_op(module) == text


def test_from_a_phase_on() -> None:
    half = compile_module(network(), PLAIN, Options(to_phase="fused"))
    text = print_op(half.module)
    rest = compile_module(half.module, PLAIN, Options(from_phase="fused", to_phase="loops"))
    whole = compile_module(network(), PLAIN, Options(to_phase="loops"))
    assert print_op(rest.module) == print_op(whole.module)
    assert "fuse" not in rest.seconds and print_op(half.module) == text
    with pytest.raises(Error, match="no phase 'fusing'"):
        compile_module(network(), PLAIN, Options(to_phase="fusing"))


def test_dumps_and_times(tmp_path: Path) -> None:
    seen: list[str] = []
    options = Options(dump_dir=str(tmp_path / "d"), on_pass=lambda p, m, s: seen.append(p.name))
    made = compile_module(network(), PLAIN, options)
    assert [p.name for p in sorted((tmp_path / "d").iterdir())] == [
        f"{k}_{p}.ir" for k, p in enumerate(PHASES)
    ]
    assert "softmax" in (tmp_path / "d/1_canonical.ir").read_text()
    assert "launch" in (tmp_path / "d/5_loops.ir").read_text()
    assert seen.count("canonicalize") >= 3 and set(seen) | {"plan"} == set(made.seconds)
    assert all([s >= 0 for s in made.seconds.values()])


def test_refusals_are_noted() -> None:
    made = compile_module(network(), PLAIN, Options(to_phase="fused"))
    assert any(["second anchor" in r.why and r.producer == "relu" for r in made.refusals])


@dataclasses.dataclass(frozen=True)
class Explode(Pass):
    """A pass with a defect."""

    def run(self, module: Module) -> Module:
        raise RuntimeError("bang")


@dataclasses.dataclass(frozen=True)
class Complain(Pass):
    """A pass that refuses the user's program."""

    def run(self, module: Module) -> Module:
        raise Error("E0401", "no")


for _name in ("explode", "complain"):
    del PASSES[_name]  # other tests list all passes


def test_a_crash_leaves_a_reproducer(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        run_passes(network(), [Explode()], Options(crash_dir=str(tmp_path)))
    place = Path(caught.value.reproducer)  # type: ignore[attr-defined]
    command = (place / "command.txt").read_text()
    assert (
        command.startswith(f"irc opt {place / 'module.irc'} --passes 'explode'")
        and "bang" in command
    )
    np.testing.assert_array_equal(run(load(place / "module.irc"), [X])[0], run(network(), [X])[0])


def test_a_users_error_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(Error):
        run_passes(network(), [Complain()], Options(crash_dir=str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_verification_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: Module) -> None:
        raise VerifyError("E0230", "seen")

    monkeypatch.setattr(pipeline, "verify", refuse)
    run_passes(network(), [Cse()])
    with pytest.raises(VerifyError, match="seen"):
        run_passes(network(), [Cse()], Options(verify_each=True))


def test_the_collector_is_restored() -> None:
    before = gc.get_threshold()
    with pytest.raises(Error):
        compile_module(network(), PLAIN, Options(shapes={"nope": (1,)}))
    compile_module(network(), PLAIN)
    with pipeline.quiet_collector():
        assert gc.get_threshold() != before
    assert gc.get_threshold() == before


def test_equal_regions_share_a_kernel() -> None:
    func = Func.make("main", [TensorType(f32, (4, 4))], ["x"])
    b = Builder(func.body)
    y = func.args[0]
    w = b.insert(Const(np.eye(4, dtype=np.float32))).result
    for _ in range(3):
        y = b.relu(b.matmul(y, w))
    b.emit(Return, y)
    made = compile_module(Module.make([func]), PLAIN, Options(to_phase="loops"))
    assert [f.kind for f in made.module.funcs] == ["func", "kernel"]


def test_shapes_are_specialised() -> None:
    made = compile_module(network(), PLAIN, Options(shapes={"x": (3, 8)}, to_phase="planned"))
    assert isinstance(made, Compiled) and made.planned is not None
    assert isinstance(made.planned.arena_bytes, int)
    assert "N" not in print_op(specialise(network(), {"x": (3, 8)}))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"y": (3, 8)}, "no tensor input 'y'"),
        ({"x": (3, 8, 1)}, "another rank"),
        ({"x": (3, 9)}, "8 is 8, not 9"),
    ],
)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(Error) as caught:
        specialise(network(), shapes)
    assert caught.value.code == "E0320" and said in caught.value.render()


def test_extents_are_solved_for_their_symbol() -> None:
    func = Func.make(
        "main", [TensorType(f32, (2 * sym("N") + 1,)), TensorType(f32, (sym("N"),))], ["a", "b"]
    )
    Builder(func.body).emit(Return, *func.args)
    module = Module.make([func])
    made = specialise(module, {"a": (7,)})
    assert [str(v.type) for v in made.main.args] == ["f32[7]", "f32[3]"]
    with pytest.raises(Error, match="no N makes"):
        specialise(module, {"a": (8,)})
    with pytest.raises(Error, match="contradicts"):
        specialise(module, {"a": (7,), "b": (4,)})


def test_dims_in_attributes_follow() -> None:
    n = sym("N")
    func = Func.make("main", [TensorType(f32, (n, 2))], ["x"])
    b = Builder(func.body)
    y = b.reshape(func.args[0], shape=(2 * n,))
    b.emit(Return, b.mul(y, b.cast(b.dim_value(dim=n), to=f32)))
    made = specialise(Module.make([func]), {"x": (3, 2)})
    x = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(run(made, [x])[0], np.full(6, 3, np.float32))
    assert str(made.main.returned[0].type) == "f32[6]"
