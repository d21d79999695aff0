"""`irc train`: a file is a training; what is wrong in it is named by field and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import irc
from irc.tools.main import run

FILE = """
[model]
layers = [
  "Flatten", { Linear = [12, 16] }, "ReLU",
  { Linear = { in_features = 16, out_features = 3 } },
]

[data]
train = "all.npz"
validation = "all.npz"
batch = 16

[train]
loss = "cross_entropy"
metrics = ["accuracy"]
epochs = 3

[optimizer]
name = "adamw"
lr = 2e-2

[schedule]
name = "cosine"
warmup = 2

[output]
checkpoints = "run"
model = "net.onnx"
log = "log.csv"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 3, 4)).astype("f")
    np.savez(tmp_path / "all.npz", x=x, y=x.reshape(50, -1)[:, :3].argmax(1))
    (tmp_path / "c.toml").write_text(FILE)
    return tmp_path


@dataclass
class Found:
    exit_code: int
    stdout: str
    stderr: str


Train = Callable[..., Found]


@pytest.fixture
def irc_train(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Found]:
    def train(*words: str, text: str | None = None) -> Found:
        if text is not None:
            (folder / "c.toml").write_text(text)
        code = run(["train", str(folder / "c.toml"), *words])
        return Found(code, *capsys.readouterr())

    return train


def test_it_trains_resumes_and_evaluates(folder: Path, irc_train: Train) -> None:
    made = irc_train("--json")
    assert made.exit_code == 0
    facts = json.loads(made.stdout)
    assert facts["epochs"] == 3 and facts["written"] == [str(folder / "net.onnx")]
    more = irc_train(
        "--resume", "--epochs", "5", "--json", "--threads", "1", "--activation-memory", "0.5"
    )
    assert json.loads(more.stdout)["epochs"] == 5
    assert len((folder / "log.csv").read_text().splitlines()) == 6
    found = irc_train("--evaluate", "--json")
    assert set(json.loads(found.stdout)) == {"loss", "accuracy"}
    exe = irc.compile(str(folder / "net.onnx"), threads=1)
    assert exe(np.zeros((5, 3, 4), np.float32)).shape == (5, 3)


def test_a_network_of_a_python_file(folder: Path, irc_train: Train) -> None:
    (folder / "net.py").write_text(
        "from irc import nn\n"
        "def Net(width):\n"
        "    first, last = nn.Linear(12, width), nn.Linear(width, 3)\n"
        "    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), last)\n"
    )
    begin = FILE.index("layers"), FILE.index("\n\n[data]")
    text = FILE[: begin[0]] + 'file = "net.py"\nargs = { width = 5 }' + FILE[begin[1] :]
    assert irc_train(text=text).exit_code == 0


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("epochs", "epoch", "did you mean 'epochs'"),
        ("[train]", "[trian]", "did you mean [train]"),
        ('"adamw"', '"adammw"', "did you mean 'adamw'"),
        ("lr =", "lrate =", "[optimizer] lrate is no field of adamw"),
        ('"cosine"', '"cosin"', "did you mean 'cosine'"),
        ("warmup", "warmups", "did you mean 'warmup'"),
        ('"ReLU"', '"Relu"', "did you mean 'ReLU'"),
        ("Linear = [12, 16]", "Linear = [12]", "entry 1 (Linear)"),
        ('"cross_entropy"', '"crossentropy"', "did you mean 'cross_entropy'"),
        ('["accuracy"]', '["acuracy"]', "did you mean 'accuracy'"),
        ('train = "all.npz"', 'train = "none.npz"', "names no file"),
        ("epochs = 3", "epochs = 0", "at least 1"),
        ("epochs = 3", 'epochs = "3"', "must be a whole number"),
        ("lr = 2e-2", 'lr = "fast"', "must be a number"),
        ("batch = 16", "batch = ", "is no TOML file"),
        ('loss = "cross_entropy"', "", "[train] loss is missing"),
        ("[12, 16]", "[11, 16]", "Linear"),
        ('"cross_entropy"', '"crossentropy"', "c.toml: [train] loss"),
        ('["accuracy"]', '["acuracy"]', "c.toml: [train] metrics"),
        ("batch = 16", "batch = 0", "[data] batch must be at least 1"),
        ('"net.onnx"', '"net.onx"', "[output] model 'net.onx' ends in no known suffix"),
        ('"net.onnx"', '"no/net.onnx"', "a folder that does not exist"),
        ("{ Linear = { in_f", "{ Dropout = [0.1], q = 2 }, { Linear = { in_f", "argument 'q'"),
    ],
)
def test_mistakes_are_named(folder: Path, irc_train: Train, old: str, new: str, said: str) -> None:
    assert FILE.count(old) >= 1
    found = irc_train(text=FILE.replace(old, new, 1))
    assert found.exit_code == 1 and said in found.stderr
    assert not (folder / "net.onnx").exists() and "Traceback" not in found.stderr


def test_a_damaged_checkpoint_is_refused(folder: Path, irc_train: Train) -> None:
    assert irc_train().exit_code == 0
    state = folder / "run" / "last" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-8])
    found = irc_train("--resume", "--epochs", "4")
    assert found.exit_code == 4 and "state.safetensors" in found.stderr
