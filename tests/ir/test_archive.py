"""Programs on disk: what is written comes back, in the same bytes, and damage is an error."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from irc.ir import archive
from irc.ir.blobs import Blob
from irc.ir.core import Builder
from irc.ir.errors import EXIT_INVALID_MODEL, Error
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.text import difference
from irc.ir.types import DType, TensorType
from irc.ir.weights import stored_bytes

DTYPES = (
    "f64 f32 f16 bf16 f8e4m3fn f8e5m2 f8e4m3fnuz f8e5m2fnuz f4e2m1 i64 i32 i16 i8 i4 "
    "i2 i3 u64 u32 u16 u8 u4 u2 u33 bool c64 c128"
).split()  # fmt: skip


def constants(count: int = 101) -> Module:
    """A module with a constant of every element type, and strings."""
    rng = np.random.default_rng(0)
    func = Func.make("main", [])
    b = Builder(func.body)
    values = []
    for name in DTYPES:
        dtype = DType(name)
        low = 0 if dtype.kind in ("uint", "bool") else -2
        array = rng.integers(low, 2, count).astype(dtype.np)
        values.append(b.insert(Const(Blob(array, TensorType(dtype, (count,))))).result)
    values.append(b.insert(Const(np.array(["a", "\u00e9\n"] * 9, object).reshape(3, 6))).result)
    values.append(b.insert(Const(np.zeros((0, 3), np.float32))).result)
    b.emit(Return, *values)
    return Module.make([func])


def arrays(module: Module) -> list[np.ndarray]:
    return [op.value.array for op in module.main.body if isinstance(op, Const)]


@pytest.mark.parametrize("name", ["m.irc", "m.ir"])
def test_everything_comes_back(name: str, tmp_path: Path) -> None:
    module = constants()
    module.save(str(tmp_path / name))
    again = archive.load(tmp_path / name)
    assert difference(module, again) is None
    for old, new in zip(arrays(module), arrays(again), strict=True):
        assert old.dtype == new.dtype and old.shape == new.shape
        assert old.tobytes() == new.tobytes() if old.dtype != object else (old == new).all()
        assert new.flags.aligned and not new.flags.writeable
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["m.irc", "m.ir"])
def test_the_same_program_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    found = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        archive.save(constants(), tmp_path / folder / name)
        found.append({f.name: f.read_bytes() for f in (tmp_path / folder).iterdir()})
    assert found[0] == found[1]
    again = archive.load(tmp_path / "a" / name)
    archive.save(again, tmp_path / "a" / name)  # over the file that its constants are mapped from
    assert {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir()} == found[0]


def test_weights_are_safetensors(tmp_path: Path) -> None:
    module = constants()
    archive.save(module, tmp_path / "m.ir")
    blobs = {op.value.digest: op.value for op in module.main.body if isinstance(op, Const)}
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        names = list(file.keys())
        assert set(names) < set(blobs)
        for name in names:
            if blobs[name].dtype.name in ("f32", "i64", "u8", "bool"):
                assert (file.get_tensor(name) == blobs[name].array).all()
        packed = next(b for b in blobs.values() if b.dtype.name == "i4")
        raw = file.get_tensor(packed.digest)
    assert raw.dtype == np.uint8 and raw.size == 51 == stored_bytes(packed.type)
    assert raw[0] == (int(packed.array[0]) & 15) | (int(packed.array[1]) & 15) << 4


def test_weights_are_mapped_not_read(tmp_path: Path) -> None:
    archive.save(constants(), tmp_path / "m.irc")
    module = archive.load(tmp_path / "m.irc")
    large = [
        op.value for op in module.main.body if isinstance(op, Const) and op.value.load is not None
    ]
    assert len(large) >= len(DTYPES)
    assert all(blob._array is None for blob in large)
    blob = next(b for b in large if b.dtype.name == "f32")
    assert not blob.array.flags.owndata


def test_every_truncation_and_every_flip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.irc"
    archive.save(constants(20), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for cut in [0, 1, 30, *rng.integers(0, len(whole), 60).tolist()]:
        path.write_bytes(whole[:cut])
        with pytest.raises(Error) as caught:
            archive.load(path)
        assert caught.value.exit_code == EXIT_INVALID_MODEL
    harmless = 0
    for at in rng.integers(0, len(whole), 300).tolist():
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            found = archive.load(path)
        except Error as error:
            assert error.exit_code == EXIT_INVALID_MODEL, error
        else:  # only fields of the zip that say nothing about the content
            assert difference(found, constants(20)) is None
            harmless += 1
    assert harmless < 60


def test_a_damaged_side_file_is_an_error(tmp_path: Path) -> None:
    archive.save(constants(), tmp_path / "m.ir")
    side = tmp_path / "m.safetensors"
    whole = side.read_bytes()
    side.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    module = archive.load(tmp_path / "m.ir")
    with pytest.raises(Error, match="E0261"):
        arrays(module)
    for content in (
        whole[:40],
        whole[:-1],
        b"",
        b"\xff" * 100,
        whole.replace(b'"f32[101]"', b'"f32[102]"'),
    ):
        side.write_bytes(content)
        with pytest.raises(Error, match="E0261") as caught:
            archive.load(tmp_path / "m.ir")
        assert caught.value.exit_code == EXIT_INVALID_MODEL
    side.unlink()
    with pytest.raises(Error, match="E0228"):
        archive.load(tmp_path / "m.ir")


def rewritten(path: Path, about: object, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as old:
        entries = {n: old.read(n) for n in old.namelist()}
    with zipfile.ZipFile(path, "w", method) as new:
        for name, content in entries.items():
            new.writestr(name, json.dumps(about).encode() if name == archive.ABOUT else content)


@pytest.mark.parametrize(
    ("about", "code"),
    [({"format": 10**6}, "E0262"), ({"format": 0}, "E0262"), ({}, "E0260"), ([], "E0260")],
)
def test_the_format_is_checked(about: object, code: str, tmp_path: Path) -> None:
    archive.save(constants(), tmp_path / "m.irc")
    rewritten(tmp_path / "m.irc", about)
    with pytest.raises(Error, match=code):
        archive.load(tmp_path / "m.irc")


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    archive.save(constants(), tmp_path / "m.irc")
    rewritten(tmp_path / "m.irc", {"format": 1}, zipfile.ZIP_DEFLATED)
    with pytest.raises(Error, match="E0260"):
        archive.load(tmp_path / "m.irc")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for name in ("m.irc", "m.ir"):
        with pytest.raises(Error, match="E0263"):
            archive.load(tmp_path / name)
    with pytest.raises(Error, match="E0264"):
        archive.save(constants(), tmp_path / "no" / "m.irc")
    (tmp_path / "text.ir").write_bytes(b"\xff\xfe")
    with pytest.raises(Error, match="E0260"):
        archive.load(tmp_path / "text.ir")


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.irc"
    archive.save(Module.make(), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "write_weights", full)
    with pytest.raises(Error, match="No space left"):
        archive.save(constants(), path)
    assert path.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["m.irc"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_the_mode_of_a_replaced_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "m.irc"
    archive.save(Module.make(), path)
    path.chmod(0o600)
    archive.save(Module.make(), path)
    assert path.stat().st_mode & 0o777 == 0o600
