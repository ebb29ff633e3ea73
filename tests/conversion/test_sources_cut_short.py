"""Mapped files that somebody cuts short while the core reads them."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pyarrow as pa
import pytest
from commands import failed, run, succeeded
from exports import files

import pyarrowquant
from pyarrowquant._core import library
from pyarrowquant.conversion.partial.identity import described
from pyarrowquant.reading import npz
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.opened import MappedFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="refuses to cut mapped files short")

# With the file that is cut short.
COMMANDS = {
    "quantize model out.parquet": "model/model.safetensors",
    "quantize model out --to compressed-tensors": "model/model.safetensors",
    "quantize model out.gguf": "model/model.safetensors",
    "quantize model out.gguf --bits-per-weight 5": "model/model.safetensors",
    "dequantize results out.safetensors": "results/model.arrow",
    "dequantize packed out.safetensors": "packed/model.safetensors",
    "compare model results": "results/model.arrow",
    "compare model packed": "model/model.safetensors",
    "report results --original model --html out.html": "model/model.safetensors",
    "recipe fit model out.json --bits-per-weight 6.5": "model/model.safetensors",
}


@pytest.fixture
def cut_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Cut a file short just before the core reads tables that are not empty."""
    original = library._run

    def before(path: Path) -> None:
        def call(*arguments: Any, **more: Any) -> Any:
            if any(table.nbytes for table in arguments[2]):
                os.truncate(path, 0)
            return original(*arguments, **more)

        monkeypatch.setattr(library, "_run", call)

    return before


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_an_error_that_names_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cut_before: Callable[[Path], None],
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    hf_folders.write(Path("model"))
    succeeded("quantize", "model", "results", "--to", "arrow")
    succeeded("quantize", "model", "packed", "--to", "compressed-tensors")
    before = files(tmp_path)
    cut = COMMANDS[command]
    cut_before(tmp_path / cut)
    result = run(*command.split())
    assert result.exit_code == 1
    assert not result.stdout
    said = result.stderr.splitlines()[-1]
    assert "was changed while it was read" in said
    assert Path(cut).name in said
    assert files(tmp_path) == {**before, cut: b""}


def test_a_table_has_an_error_of_the_system(
    tmp_path: Path, cut_before: Callable[[Path], None]
) -> None:
    path = tmp_path / "model.arrow"
    table = pa.table({"layer_name": ["a"], "weights": [np.ones(10_000, np.float32)]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    mapped = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    allocated = library.allocated_bytes()
    cut_before(path)
    with pytest.raises(OSError, match="cannot be read any more: a mapped file was cut short"):
        pyarrowquant.quantize_batch_arrow(mapped)
    assert library.allocated_bytes() == allocated


def test_arrays_of_numpy_are_not_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "model.npz", tmp_path / "out.parquet"
    np.savez(source, up=np.ones((64, 4096), np.float32))
    original = npz._read_run

    def cut(*arguments: Any) -> pa.RecordBatch:
        os.truncate(source, 0)
        return original(*arguments)

    monkeypatch.setattr(npz, "_read_run", cut)
    assert "model.npz" in failed("quantize", source, out)
    assert files(tmp_path) == {"model.npz": b""}


def test_what_tells_files_apart_is_not_read_from_mapped_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may be cut short just when it is found out whether it has changed."""
    path = tmp_path / "model.npz"
    path.write_bytes(bytes(10_000))
    monkeypatch.delattr(MappedFile, "buffer")
    (found,) = described([locate(path, None)])
    assert found["ends"] == hashlib.sha256(bytes(20_000)).hexdigest()
