"""Errors of the system in calls that have no path, such as fsync and write, name a file."""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import gguf
import gguf_models
import hf_folders
import numpy as np
import pyarrow as pa
import pytest
from commands import failed, succeeded
from exports import files
from safetensors.numpy import save_file

from pyarrowquant._core import locks, scratch
from pyarrowquant.conversion.partial import work

# What makes a file or folder, and an option of the one that was there before.
COMMANDS = {
    "quantize model out.parquet": "--bits=8",
    "quantize model out --to arrow": "--bits=8",
    "quantize model out --to compressed-tensors": "--bits=8",
    "quantize model out --to bitsandbytes": "--double",
    "quantize model out --to mlx": "--bits=8",
    "quantize model/model.safetensors out.gguf --tensors-only": "--bits=8",
    "dequantize results.parquet out.safetensors": "--dtype=float16",
    "dequantize results.parquet out.arrow": "--dtype=float16",
    "report results.parquet --html out.html": "--original=model",
    "recipe fit model out.json --bits-per-weight 6.5": "--objective=relative_error",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("model").mkdir()
    names = [f"layers.{i}.up.weight" for i in range(2)]
    save_file(
        {name: rng.standard_normal((96, 64), np.float32) for name in names},
        "model/model.safetensors",
    )
    Path("model/config.json").write_text('{"model_type": "llama"}')
    succeeded("quantize", "model", "results.parquet")
    return tmp_path


@contextmanager
def unsafe_disk() -> Iterator[str]:
    def fsync(_number: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield os.strerror(errno.EIO)


@contextmanager
def small_files() -> Iterator[str]:
    """Let no file have more than some bytes, as for users with a limit."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        yield os.strerror(errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="fsync and limits of POSIX")
@pytest.mark.parametrize("fault", [unsafe_disk, small_files])
@pytest.mark.parametrize("command", COMMANDS)
def test_of_what_is_written(place: Path, command: str, fault: object) -> None:
    succeeded(*command.split(), COMMANDS[command])
    before = files(place)
    with fault() as problem:  # type: ignore[operator]
        said = failed(*command.split(), "--overwrite").splitlines()[-1]
    assert said.startswith("Error: ")
    assert problem in said
    assert str(place) in said
    assert {name: data for name, data in files(place).items() if name in before} == before


@pytest.mark.parametrize("command", ["inspect model", *(list(COMMANDS)[:3])])
@pytest.mark.usefixtures("place")
def test_of_what_is_read(command: str) -> None:
    def fstat(_number: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        said = failed(*command.split())
    assert (
        said == f"Error: [Errno {errno.EIO}] {os.strerror(errno.EIO)}: 'model/model.safetensors'\n"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_locks_that_cannot_be_closed_do_no_harm(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    class Failing:
        """A file of which the system says an error when it is closed, as on a network."""

        def __init__(self, file: IO[bytes]) -> None:
            self._file = file

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

        def close(self) -> None:
            self._file.close()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    original = locks.closing
    for module in (scratch, work):
        monkeypatch.setattr(module, "closing", lambda file: original(Failing(file)))  # type: ignore[arg-type]
    succeeded(*command.split())
    assert not [*place.glob(".*")]


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_tables_that_cannot_be_closed_are_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    class Full(pa.OSFile):  # type: ignore[misc]
        def close(self) -> None:
            is_written = not self.closed and self.writable()
            super().close()
            if is_written:
                raise OSError("error closing file")

    monkeypatch.setattr(pa, "OSFile", Full)
    said = failed("dequantize", "results.parquet", f"out.{kind}")
    assert "error closing file" in said
    assert str(place) in said
    assert not [*place.glob("out.*"), *place.glob(".*")]


@pytest.mark.parametrize("command", ["quantize folder out.gguf", "dequantize folder out.gguf"])
def test_a_card_that_the_disk_refuses_is_no_card_without_a_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def load(*_arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    hf_folders.write(place / "folder")
    monkeypatch.setattr(gguf.Metadata, "load", load)
    said = failed(*command.split())
    assert said.endswith(f"Error: [Errno {errno.EIO}] {os.strerror(errno.EIO)}: 'folder'\n")
    assert not [*place.glob("out.*"), *place.glob(".*")]


def test_of_empty_tensors_that_no_array_holds(place: Path) -> None:
    model = gguf_models.llama(place / "model.gguf", layers=1)
    data = model.read_bytes()
    name = b"output.weight"
    sizes = struct.pack("<IQQ", 2, 256, 64)
    assert data.count(name + sizes) == 1
    model.write_bytes(data.replace(name + sizes, name + struct.pack("<IQQ", 2, 2**62, 0)))
    said = failed("quantize", model, "out.gguf", "--recipe", "Q4_0")
    assert str(model) in said
    assert f"'output.weight' has shape [0, {2**62}]" in said
