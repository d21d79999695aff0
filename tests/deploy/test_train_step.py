"""Packages of train steps: what gcc, the sanitizers and the linker say of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc import nn, optim
from irc.deploy.folder import json_text, package_name, write_package
from irc.deploy.programs import Entry, link
from irc.deploy.state import layout, starts
from irc.frontends.train.export import export_step
from irc.frontends.train.step import TrainStep
from irc.ir.core import Builder, Loc
from irc.ir.errors import Error
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import TensorType, f32, i64, u32

STRICT = "-O2 -Werror -Wconversion"
SANITIZED = "-g -O0 -fsanitize=address,undefined -fno-sanitize-recover=all -Werror"

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is on the PATH")

RNG = np.random.default_rng(5)
X = RNG.standard_normal((16, 12)).astype(np.float32)
Y = RNG.integers(0, 5, 16)


def perceptron(**options: Any) -> TrainStep:
    nn.manual_seed(11)
    net = nn.Sequential(
        nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.25), nn.Linear(24, 5)
    )
    schedule = optim.cosine(2e-2, total=60, warmup=5)
    options = {"optimizer": optim.AdamW(schedule, clip_norm=1.0)} | options
    return TrainStep(net, loss="cross_entropy", metrics=["accuracy"], target="reference", seed=9,
                     **options)  # fmt: skip


def make(folder: Path, *goals: str, flags: str = STRICT) -> str:
    command = ["make", "-s", "-C", str(folder), *goals, f"CFLAGS={flags}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "small net"
    return export_step(perceptron(), folder, example=(X, Y), infer_batch=1)


def test_the_package_is_clean_c_and_passes_its_test(package: Path) -> None:
    assert "small_net: ok" in make(package, "check")
    lines = make(package, "example").splitlines()
    losses = [float(line.split()[3]) for line in lines if line.startswith("step")]
    assert len(losses) == 20 and losses[-1] < losses[0]


@pytest.fixture(scope="module")
def sanitized(package: Path) -> Path:
    """A copy whose library is built with address and undefined-behaviour sanitizers."""
    copy = Path(shutil.copytree(package, package.parent / "sanitized"))
    make(copy, "clean")
    make(copy, "all", flags=SANITIZED)
    return copy


def test_clean_under_sanitizers(sanitized: Path) -> None:
    assert "small_net: ok" in make(sanitized, "check", flags=SANITIZED)


def test_the_self_test_can_fail(package: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(package, tmp_path / "p"))
    file = copy / "testdata" / "small_net_testdata.h"
    head, _, tail = file.read_text().partition("test_losses[TEST_STEPS] = {")
    file.write_text(head + "test_losses[TEST_STEPS] = {1" + tail)
    make(copy, "clean")
    command = ["make", "-s", "-C", str(copy), "check", "CFLAGS=-O0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "loss of step 0: expected" in done.stdout


def test_no_writable_globals_no_allocator_only_prefixed_names(package: Path) -> None:
    make(package)
    table = subprocess.run(
        ["nm", str(package / "lib" / "small_net.o")], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split()[-2:] for line in table.splitlines() if line.strip()]
    assert {name for kind, name in rows if kind in "DdBbCGgSs"} == set()
    assert {name for kind, name in rows if kind == "U"} <= {
        "memcpy", "memset", "memcmp", "memmove", "sqrt", "sqrtf",
    }  # fmt: skip
    public = {name for kind, name in rows if kind in "TR"}
    assert public == {f"small_net_{n}" for n in (
        "init", "train_step", "eval_step", "infer", "save", "restore", "strerror", "abi_version",
        "info_json",
    )}  # fmt: skip


def test_the_header_is_cpp_too(package: Path, tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler is on the PATH")
    file = tmp_path / "a.cpp"
    file.write_text('#include "small_net.h"\nint main() { return small_net_abi_version() - 1; }\n')
    make(package)
    library = package / "lib" / "libsmall_net.a"
    command = ["c++", "-Wall", "-Wextra", "-Werror", f"-I{package}/include", str(file)]
    subprocess.run([*command, str(library), "-o", str(tmp_path / "a")], check=True)
    subprocess.run([str(tmp_path / "a")], check=True)


def test_the_manifest_describes_the_files(package: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    assert manifest["schema"] == "irc-package-1" and manifest["batch"] == 16
    assert all((package / name).is_file() for name in manifest["files"])
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=package)
    assert sums.returncode == 0
    cells = manifest["state"]["cells"]
    ends = [c["offset"] + c["bytes"] for c in cells]
    assert all(a <= c["offset"] for a, c in zip([16, *ends], cells))
    assert ends[-1] <= manifest["state"]["bytes"] and manifest["state"]["bytes"] % 64 == 0
    assert [c["first"] for c in cells if c["name"] == "buffers/1.running_var"] == ["fill"]
    assert manifest["arena_bytes"] == max([e["arena_bytes"] for e in manifest["entries"].values()])
    assert manifest["entries"]["infer"]["inputs"][0]["shape"] == [1, 12]
    header = (package / "include" / "small_net.h").read_text()
    assert all(f"{c['offset']}  {c['name']}: " in header for c in cells)


def test_same_input_same_bytes(package: Path, tmp_path: Path) -> None:
    again = export_step(
        perceptron(), tmp_path / "b", example=(X, Y), infer_batch=1, name="small_net"
    )
    sums = (package / "SHA256SUMS").read_text()
    assert (again / "SHA256SUMS").read_text() == sums


def run_main(package: Path, body: str) -> list[str]:
    """A program of a few lines behind `init`; what it prints."""
    name = "small_net"
    upper = name.upper()
    text = f"""
#include <stdio.h>
#include <string.h>
#include "{name}.h"
#include "{name}_testdata.h"
static uint8_t memory[{upper}_STATE_BYTES + {upper}_ARENA_BYTES + 128];
static uint8_t before[{upper}_STATE_BYTES];
int main(void) {{
    uint8_t *state = memory + (64 - (uintptr_t)memory % 64) % 64;
    uint8_t *arena = state + {upper}_STATE_BYTES;
    {name}_ctx ctx;
    {name}_train_step_out out;
    int64_t y[16];
    memcpy(y, test_y, sizeof y);
    if ({name}_init(&ctx, state, {upper}_STATE_BYTES, arena, {upper}_ARENA_BYTES, 9)) return 1;
    {body}
    (void)before;
    return 0;
}}
"""
    folder = package.parent / "main"
    folder.mkdir(exist_ok=True)
    (folder / "main.c").write_text(text)
    command: Sequence[str] = [
        "cc", "-std=c99", *SANITIZED.split(), "-Wno-unused",
        f"-I{package}/include", f"-I{package}/testdata",
        "main.c", f"{package}/lib/lib{name}.a", "-o", "main", "-lm",
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True)
    return subprocess.run(
        [folder / "main"], capture_output=True, text=True, check=True
    ).stdout.split()


def test_a_label_out_of_range_leaves_the_state(sanitized: Path) -> None:
    body = """
    for (int k = 0; k < 2; ++k) {
        y[3] = k ? 5 : -1;
        memcpy(before, state, sizeof before);
        printf("%d ", (int)small_net_train_step(&ctx, test_x, y, &out));
        printf("%d ", memcmp(before, state, sizeof before));
    }
    """
    assert run_main(sanitized, body) == ["1", "0", "1", "0"]


def test_two_contexts_are_independent(sanitized: Path) -> None:
    body = """
    static uint8_t more[SMALL_NET_STATE_BYTES + SMALL_NET_ARENA_BYTES + 64];
    uint8_t *other = more + (64 - (uintptr_t)more % 64) % 64;
    small_net_ctx two;
    size_t room = SMALL_NET_STATE_BYTES, free = SMALL_NET_ARENA_BYTES;
    if (small_net_init(&two, other, room, arena, free, 9)) return 1;
    for (int k = 0; k < 3; ++k) {
        if (small_net_train_step(&ctx, test_x, test_y, &out)) return 1;
        if (small_net_train_step(&two, test_x, test_y, &out)) return 1;
    }
    printf("%d ", memcmp(state, other, SMALL_NET_STATE_BYTES));
    if (small_net_init(&two, other, room, arena, free, 10)) return 1;
    for (int k = 0; k < 3; ++k) {
        if (small_net_train_step(&two, test_x, test_y, &out)) return 1;
    }
    printf("%d", memcmp(state, other, SMALL_NET_STATE_BYTES) != 0);
    """
    assert run_main(sanitized, body) == ["0", "1"]


# --------------------------------------------------------------------- parts


def test_layout_keeps_the_model_in_one_run() -> None:
    found = layout([("w", TensorType(f32, (300, 3))), ("b", TensorType(f32, (3,)))],
                   [("W", TensorType(u32, (2,))), ("n", TensorType(i64, ()))])  # fmt: skip
    assert [c.offset for c in found.cells] == [64, 3664, 3680, 3688]
    assert found.model_end == 3680 and found.bytes == 3712
    assert [c.c_name for c in found.cells] == ["w", "b", "w_2", "n"]


def test_first_values_are_zero_filled_copied_or_tables() -> None:
    types = TensorType(f32, (4,))
    found = layout([(n, types) for n in ("zero", "one", "table", "again")], [])
    arrays = {
        "zero": np.zeros(4),
        "one": np.ones(4),
        "table": np.arange(4.0),
        "again": np.arange(4.0),
    }
    made, tables = starts("m", found, {n: a.astype("f4") for n, a in arrays.items()}, (), "")
    assert [(s.cell.name, s.kind) for s in made] == [
        ("one", "fill"), ("table", "table"), ("again", "copy"),
    ]  # fmt: skip
    assert len(tables) == 1
    minus = {n: np.full(4, -0.0, np.float32) for n in arrays}
    assert starts("m", found, minus, (), "")[0][0].text == "-0.0f"


@pytest.mark.parametrize(
    "folder, name", [("My-Net 2", "my_net_2"), ("3d", "m_3d"), ("int", "m_int"), ("--", "model")]
)
def test_names_from_folders(folder: str, name: str) -> None:
    assert package_name(Path(folder), None) == name


@pytest.mark.parametrize("name", ["a-b", "", "2x", "double", "_x"])
def test_a_name_that_c_has_not_is_refused(name: str) -> None:
    with pytest.raises(Error, match="cannot begin the names") as caught:
        package_name(Path("p"), name)
    assert caught.value.code == "E0803"


def test_a_foreign_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(Error, match="is no package") as caught:
        write_package(tmp_path, {"a": "b"})
    assert caught.value.code == "E0804"
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_a_package_is_replaced_whole(tmp_path: Path) -> None:
    goal = tmp_path / "p"
    manifest = json_text({"schema": "irc-package-1"})
    write_package(goal, {"manifest.json": manifest, "src/old.c": ""})
    write_package(goal, {"manifest.json": manifest, "src/new.c": ""})
    assert sorted(p.name for p in goal.rglob("*")) == [
        "SHA256SUMS",
        "manifest.json",
        "new.c",
        "src",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_a_failed_write_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goal = tmp_path / "p"
    write_package(goal, {"manifest.json": json_text({"schema": "irc-package-1"})})
    before = (goal / "SHA256SUMS").read_text()
    rename = Path.rename

    def fails(self: Path, to: Any) -> Any:
        if Path(to) == goal and "-old-" not in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(Error, match="No space left") as caught:
        write_package(goal, {"manifest.json": "{}"})
    assert caught.value.code == "E0805"
    assert (goal / "SHA256SUMS").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(Error, match="cannot write the package") as caught:
        write_package(tmp_path / "f" / "p", {"a": ""})
    assert caught.value.code == "E0805"


def test_what_only_a_host_can_do_is_named() -> None:
    func = Func.make("main", [TensorType(f32, (4,))], ["x"], outputs=("places",))
    b = Builder(func.body, None, Loc("net", "net.py", 7))
    b.emit(Return, b.cast(b.non_zero(func.args[0]), to=f32))
    with pytest.raises(Error, match="'infer' cannot be a C function") as caught:
        link("net", [Entry("infer", Module.make([func]), ())])
    assert caught.value.code == "E0806" and caught.value.exit_code == 3
    assert caught.value.details[0].startswith("op 'non_zero' at net in net.py:7")


def test_entries_share_kernels_and_constants() -> None:
    def entry(name: str) -> Entry:
        func = Func.make("main", [TensorType(f32, (64,))], ["x"], outputs=("y",))
        b = Builder(func.body)
        table = b.insert(Const(np.arange(64, dtype=np.float32))).result
        b.emit(Return, b.add(func.args[0], table))
        return Entry(name, Module.make([func]), ())

    one, two = link("net", [entry("a")]), link("net", [entry("a"), entry("b")])
    assert (one.kernels, one.weight_bytes) == (two.kernels, two.weight_bytes) == (1, 256)
    assert [f.plan for f in two.functions] == ["net_a_plan", "net_b_plan"]
