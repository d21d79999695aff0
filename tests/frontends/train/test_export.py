"""Exported train steps: they do in C what they do in Python, and say what they cannot."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc import nn, optim
from irc.frontends.train.export import export_step, trained_of
from irc.frontends.train.step import TrainStep
from irc.frontends.train.trainer import Trainer
from irc.ir.errors import Error

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is on the PATH")
RNG = np.random.default_rng(1)


def loaded(folder: Path, seed: int, flags: str = "-O1 -Werror") -> Any:
    """The package's own Python face on its library."""
    command = ["make", "-s", "-C", str(folder), "shared", f"CFLAGS={flags}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (folder / "python").glob("*.py")
    spec = importlib.util.spec_from_file_location(f"{file.stem}_{id(folder)}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Step(seed)


def manifest(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits where scikit-learn is, else noisy copies of ten patterns."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        y = RNG.integers(0, 10, 1797)
        x = RNG.integers(0, 17, (10, 64))[y] + RNG.normal(0, 4, (1797, 64))
        return (x / 16).astype(np.float32), y
    found = load_digits()
    return (found.data / 16).astype(np.float32), found.target.astype(np.int64)


def digits_mlp(target: str = "cpu") -> TrainStep:
    nn.manual_seed(3)
    net = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = optim.AdamW(optim.cosine(2e-3, total=100, warmup=10), weight_decay=1e-4)
    return TrainStep(net, loss="cross_entropy", metrics=["accuracy"], seed=21, threads=1,
                     target=target, optimizer=optimizer)  # fmt: skip


def batches(count: int = 100, rows: int = 64) -> list[tuple[np.ndarray, np.ndarray]]:
    x, y = digits()
    picks = [np.random.default_rng(k).integers(0, len(x), rows) for k in range(count)]
    return [(x[p], y[p]) for p in picks]


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """The package of the digits MLP, and the losses of 100 steps in Python."""
    step, data = digits_mlp(), batches()
    folder = export_step(step, tmp_path_factory.mktemp("mlp") / "digits", example=data[0],
                         test_steps=2)  # fmt: skip
    return folder, [float(step(b).logs["loss"]) for b in data]


@needs_cc
def test_the_digits_mlp_trains_as_in_python(mlp: tuple[Path, list[float]]) -> None:
    folder, expected = mlp
    device = loaded(folder, 21)
    found = [float(device.train_step(*b)["loss"]) for b in batches()]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert found[-1] < found[0] / 2


DRIVER = """
#include <stdio.h>
#include "digits.h"
static uint8_t memory[DIGITS_STATE_BYTES + DIGITS_ARENA_BYTES + 64];
static float x[DIGITS_TRAIN_STEP_X_ELEMENTS];
static int64_t y[DIGITS_TRAIN_STEP_Y_ELEMENTS];
int main(void) {
    uint8_t *state = memory + (64 - (uintptr_t)memory % 64) % 64;
    uint8_t *arena = state + DIGITS_STATE_BYTES;
    digits_ctx ctx;
    digits_train_step_out out;
    if (digits_init(&ctx, state, DIGITS_STATE_BYTES, arena, DIGITS_ARENA_BYTES, 21)) return 1;
    while (fread(x, sizeof x, 1, stdin) == 1 && fread(y, sizeof y, 1, stdin) == 1) {
        if (digits_train_step(&ctx, x, y, &out)) return 2;
        printf("%.9g ", (double)out.loss);
    }
    return 0;
}
"""


@needs_cc
@pytest.mark.long
def test_the_digits_mlp_is_clean_under_sanitizers(mlp: tuple[Path, list[float]]) -> None:
    folder, expected = mlp
    main = folder.parent / "main.c"
    main.write_text(DRIVER)
    flags = "-std=c99 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -Werror".split()
    command = ["cc", *flags, "-ffp-contract=off", f"-I{folder}/include", str(main)]
    command += [str(folder / "src" / "digits.c"), "-o", str(main.with_suffix("")), "-lm"]
    subprocess.run(command, check=True)
    data = b"".join([x.tobytes() + y.tobytes() for x, y in batches()])
    done = subprocess.run([main.with_suffix("")], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    np.testing.assert_allclose(np.fromstring(done.stdout.decode(), sep=" "), expected, atol=1e-5)


# --------------------------------------------------------------------- random bits, statistics


class Masked(nn.Module):
    """A weight whose gradient is the dropout mask."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(np.zeros((8, 33), np.float32))
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(5)
        self.scale = nn.Parameter(np.ones(5, np.float32))

    def forward(self, x: Any) -> Any:
        return nn.sum(self.drop(nn.ones((8, 33))) * self.w) + nn.sum(self.norm(x) * self.scale)


def masked(target: str) -> TrainStep:
    return TrainStep(Masked(), objective=lambda net, x: net(x), optimizer=optim.SGD(1.0), seed=77,
                     target=target, threads=1)  # fmt: skip


@needs_cc
def test_dropout_bits_and_statistics_are_those_of_python(tmp_path: Path) -> None:
    data = [RNG.standard_normal((8, 5)).astype(np.float32) * 3 + k for k in range(4)]
    compiled = masked("cpu")
    folder = export_step(compiled, tmp_path / "m", example=data[0], test_steps=1)
    device = loaded(folder, 77)
    eager = Masked()
    optimizer = optim.SGD(1.0).attach(eager)
    nn.manual_seed(77)
    for x in data:
        compiled(x)
        device.train_step(x)
        optimizer.zero_grad()
        eager(nn.tensor(x)).backward()
        optimizer.step()
    arrays = device.arrays()
    assert arrays["rng/key"].tolist() == [77, 0]
    mask = -eager.w.numpy()
    assert set(np.unique(mask)) == {0, 2, 4, 6, 8}
    np.testing.assert_array_equal(-compiled.net.w.numpy(), mask)
    np.testing.assert_array_equal(-arrays["params/w"], mask)
    np.testing.assert_array_equal(arrays["rng/counter"], compiled.arrays()["rng/counter"])
    for name in ("running_mean", "running_var"):
        expected = getattr(eager.norm, name).numpy()
        np.testing.assert_allclose(getattr(compiled.net.norm, name).numpy(), expected, atol=1e-6)
        np.testing.assert_allclose(arrays[f"buffers/norm.{name}"], expected, rtol=0, atol=1e-6)


# --------------------------------------------------------------------- what begins how


def small(seed: int = 5, **options: Any) -> TrainStep:
    nn.manual_seed(seed)
    layers = [nn.Linear(6, 9, bias=False), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 4)]
    options = {"optimizer": optim.SGD(0.05, momentum=0.9), "target": "reference"} | options
    return TrainStep(nn.Sequential(*layers), loss="cross_entropy", seed=seed, **options)


X = RNG.standard_normal((12, 6)).astype(np.float32)
Y = RNG.integers(0, 4, 12).astype(np.int32)


@needs_cc
def test_parameters_drawn_on_the_device_are_those_of_nn(tmp_path: Path) -> None:
    step = small(optimizer=optim.Adam(0.01, ema=0.9))
    step((X, Y))  # the values of now do not count, how they were drawn does
    folder = export_step(step, tmp_path / "p", init="seed", test_steps=1)
    first = {c["name"]: c["first"] for c in manifest(folder)["state"]["cells"]}
    assert first["params/0.weight"] == first["params/3.bias"] == "drawn"
    assert first["slots/0.weight/ema"] == "copy" and first["params/1.weight"] == "table"
    for seed in (5, 2**40 + 17):
        device = loaded(folder, seed).arrays()
        fresh = small(seed)
        for name in ("0.weight", "3.weight", "3.bias"):
            expected = fresh.arrays()[f"params/{name}"]
            np.testing.assert_array_equal(device[f"params/{name}"], expected)
            np.testing.assert_array_equal(device[f"slots/{name}/ema"], expected)


def test_parameters_given_are_not_drawn(tmp_path: Path) -> None:
    step = small()
    state = {n: np.array(a) for n, a in step.net.state_dict().items()}
    state["0.weight"] = state["0.weight"] + 1
    step.net.load_state_dict(state)
    folder = export_step(step, tmp_path / "p", init="seed", example=(X, Y), test_steps=1)
    first = {c["name"]: c["first"] for c in manifest(folder)["state"]["cells"]}
    assert (first["params/0.weight"], first["params/3.weight"]) == ("table", "drawn")


@needs_cc
def test_training_goes_on_where_python_stopped(tmp_path: Path) -> None:
    step = small(optimizer=optim.AdamW(optim.cosine(0.02, total=10)))
    for _ in range(3):
        step((X, Y))
    step.rate = 0.5
    folder = export_step(step, tmp_path / "p", init="state", test_steps=1)
    device = loaded(folder, 99)
    for _ in range(4):
        expected, found = step((X, Y)).logs, device.train_step(X, Y)
        np.testing.assert_allclose(found["loss"], expected["loss"], atol=1e-6)
        np.testing.assert_allclose(found["lr"], expected["lr"], rtol=1e-12)
    assert int(device.arrays()["step"]) == 7


@needs_cc
def test_save_restore_and_damage(tmp_path: Path) -> None:
    folder = export_step(small(), tmp_path / "p", example=(X, Y), test_steps=1)
    device = loaded(folder, 1)
    device.train_step(X, Y)
    whole, model = device.save(0), device.save(1)
    assert len(model) < len(whole)
    expected = [device.train_step(X, Y)["loss"] for _ in range(3)]
    device.restore(whole)
    assert [device.train_step(X, Y)["loss"] for _ in range(3)] == expected
    other = loaded(folder, 2)
    other.restore(model)
    assert other.infer(X)["output"].tolist() != device.infer(X)["output"].tolist()
    device.restore(model)
    assert other.infer(X)["output"].tolist() == device.infer(X)["output"].tolist()
    assert other.arrays()["step"] == 0 and device.arrays()["step"] == 4
    before = device.state.copy()
    for at in (0, 9, 17, 21, 25, 29, 40, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        with pytest.raises(RuntimeError, match="damaged|another model"):
            device.restore(bytes(damaged))
    np.testing.assert_array_equal(device.state, before)


def test_the_fingerprint_is_of_the_network_not_of_rates(tmp_path: Path) -> None:
    def of(name: str, step: TrainStep, **options: Any) -> str:
        folder = export_step(step, tmp_path / name, example=(X, Y), test_steps=1, **options)
        return str(manifest(folder)["fingerprint"])

    plain = of("a", small())
    assert of("b", small(6, optimizer=optim.SGD(0.7, momentum=0.5))) == plain
    assert of("d", small(), frozen="0.*") != plain


# --------------------------------------------------------------------- frozen parts


@needs_cc
def test_frozen_parameters_are_constants_without_slots(tmp_path: Path) -> None:
    step = small()
    folder = export_step(step, tmp_path / "p", example=(X, Y), frozen=["0.weight", "1.*"])
    about = manifest(folder)
    names = {c["name"] for c in about["state"]["cells"]}
    assert {c["name"] for c in about["constants"]} == {
        "params/0.weight", "params/1.weight", "params/1.bias",
    }  # fmt: skip
    assert "slots/3.weight/momentum" in names and not any("0.weight" in n for n in names)
    assert "buffers/1.running_mean" in names
    whole = export_step(small(), tmp_path / "q", example=(X, Y), test_steps=1)
    assert about["kernels"] < manifest(whole)["kernels"]
    device = loaded(folder, 5)
    for name, p in step.net.named_parameters():
        p.requires_grad = name.startswith("3.")
    python = TrainStep(step.net, loss="cross_entropy", optimizer=optim.SGD(0.05, momentum=0.9),
                       target="reference", seed=5)  # fmt: skip
    for _ in range(4):
        expected = python((X, Y)).logs["loss"]
        np.testing.assert_allclose(device.train_step(X, Y)["loss"], expected, atol=1e-6)
    found = device.eval_step(X, Y)["loss"]
    np.testing.assert_allclose(found, python.evaluate((X, Y)).logs["loss"], atol=1e-6)
    np.testing.assert_allclose(device.infer(X)["output"], python.predict(X), atol=1e-5)


def test_patterns_say_what_is_trained() -> None:
    names = ["conv1.weight", "conv1.bias", "head.weight"]
    every = [f"params/{n}" for n in names]
    assert trained_of(names, (), None, every) == set(names)
    assert trained_of(names, "conv*", None, every) == {"head.weight"}
    assert trained_of(names, (), ["head.*"], every) == {"head.weight"}
    assert trained_of(names, ["*.bias"], ["conv1.*"], every) == {"conv1.weight"}
    with pytest.raises(Error, match="no parameter is called 'haed.weight'") as caught:
        trained_of(names, (), "haed.weight", every)
    assert caught.value.code == "E0802" and caught.value.hint == "did you mean 'head.weight'?"
    with pytest.raises(Error, match="no parameter is left") as caught:
        trained_of(names, "*", None, every)
    assert caught.value.code == "E0802"


# --------------------------------------------------------------------- kinds of steps


KINDS = {
    "micro-batches": {"accumulate": 3},
    "bf16": {"precision": "bf16"},
    "loss scale": {"loss_scale": "dynamic"},
    "lion": {"optimizer": optim.Lion(1e-3, clip_value=0.1)},
}


@needs_cc
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.long] * (k in ("bf16", "lion"))) for k in KINDS]
)
def test_kinds_of_steps(kind: str, tmp_path: Path) -> None:
    options = KINDS[kind]
    step = small(**options)
    folder = export_step(step, tmp_path / "p", example=(X, Y), test_steps=1)
    device = loaded(folder, 5)
    for _ in range(3):
        expected = step((X, Y)).logs
        found = device.train_step(X, Y)
        bound = 2e-2 if kind == "bf16" else 1e-5
        np.testing.assert_allclose(found["loss"], expected["loss"], atol=bound)
    assert set(expected) <= set(found)


@needs_cc
@pytest.mark.long
def test_a_convolutional_network(tmp_path: Path) -> None:
    nn.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 10),
    )  # fmt: skip
    step = TrainStep(net, loss="cross_entropy", optimizer=optim.SGD(0.05, momentum=0.9), seed=4,
                     threads=1)  # fmt: skip
    data = [(x.reshape(-1, 1, 8, 8), y) for x, y in batches(20, 16)]
    folder = export_step(step, tmp_path / "cnn", example=data[0], test_steps=3)
    device = loaded(folder, 4)
    for x, y in data:
        found = device.train_step(x, y)["loss"]
        np.testing.assert_allclose(found, step((x, y)).logs["loss"], atol=2e-5)
    subprocess.run(["make", "-s", "-C", str(folder), "check"], check=True)


def test_a_trainer_exports_batches_like_those_it_saw(tmp_path: Path) -> None:
    trainer = Trainer(small().net, loss="cross_entropy", metrics=["confusion"][:0], seed=3,
                      target="reference")  # fmt: skip
    trainer.fit((X, Y), epochs=1, batch_size=8, progress=False)  # the last batch has four rows
    trainer.export_step(tmp_path / "p", target="c", test_steps=1)
    about = manifest(tmp_path / "p")
    assert about["batch"] == 8
    assert [i["shape"] for i in about["entries"]["train_step"]["inputs"]] == [[8, 6], [8]]
    trainer.export_step(tmp_path / "p", batch=5, infer_batch=1, test_steps=1)
    about = manifest(tmp_path / "p")
    assert about["batch"] == 5 and about["entries"]["infer"]["inputs"][0]["shape"] == [1, 6]


# --------------------------------------------------------------------- errors


class Sorting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(np.ones(6, np.float32))

    def forward(self, x: Any) -> Any:
        return nn.sort(x * self.w)


@pytest.mark.parametrize(
    "options, code, said",
    [
        ({"target": "cortex"}, "E0801", "not packaged for 'cortex'"),
        ({"exmaple": 1}, "E0801", "no option 'exmaple'"),
        ({"init": "random"}, "E0801", "no beginning 'random'"),
        ({"name": "a b"}, "E0803", "cannot begin"),
        ({"example": None}, "E0807", "types of a batch"),
        ({"batch": 0}, "E0807", "no batch of 0 rows"),
        ({"frozen": "fc.*"}, "E0802", "no parameter is called"),
    ],
)
def test_mistakes_have_names(options: dict[str, Any], code: str, said: str, tmp_path: Path) -> None:
    step = small()
    with pytest.raises(Error, match=said) as caught:
        export_step(step, tmp_path / "p", **({"example": (X, Y)} | options))
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(Error, match="is no package") as caught:
        export_step(small(), tmp_path, example=None)
    assert caught.value.code == "E0804"
