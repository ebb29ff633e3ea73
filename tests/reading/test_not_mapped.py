"""File systems that map no files: the same results, from bytes that are read."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from exports import files
from gguf_models import saved
from models import write_shards, write_table
from onnx_models import mlp

from pyarrowquant import numpy_to_arrow_table, read_weights
from pyarrowquant.cli import main
from pyarrowquant.reading import gguf

ARRAYS = {
    name: np.random.default_rng(seed).standard_normal((64, 128), np.float32)
    for seed, name in enumerate(("a.weight", "b.weight", "c.weight"))
}


def _shards(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    first, *others = ARRAYS
    shards = {
        "model-00001-of-00002.safetensors": {first: ARRAYS[first]},
        "model-00002-of-00002.safetensors": {name: ARRAYS[name] for name in others},
    }
    return write_shards(folder, shards)


def _table(path: Path) -> Path:
    write_table(numpy_to_arrow_table(ARRAYS), path)
    return path


def _npz(path: Path) -> Path:
    np.savez(path, **ARRAYS)
    return path


CASES: dict[str, tuple[Callable[[Path], Path], str, list[str]]] = {
    "shards to mlx": (_shards, "out", ["--to", "mlx"]),
    "shards to compressed-tensors": (_shards, "out", ["--to", "compressed-tensors"]),
    "model.gguf": (saved, "out.gguf", []),
    "model.onnx": (lambda path: mlp().save(path), "out.onnx", []),
    "table.parquet": (_table, "out.parquet", []),
    "table.arrow": (_table, "out.gguf", []),
    "arrays.npz": (_npz, "out.arrow", []),
}


@pytest.fixture
def unmapped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Refuse to map a file, as the kernel does where a file system cannot; counts refusals."""
    real, refused = mmap.mmap, []

    def refuses(number: int, *arguments: Any, **options: Any) -> mmap.mmap:
        if number == -1:
            return real(number, *arguments, **options)
        refused.append(number)
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(mmap, "mmap", refuses)
    return refused


def _quantized(source: Path, target: Path, options: list[str]) -> dict[str, bytes]:
    target.parent.mkdir()
    arguments = ["quantize", str(source), str(target), *options]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return files(target.parent)


@pytest.mark.parametrize("case", CASES)
def test_the_same_files(tmp_path: Path, case: str, request: pytest.FixtureRequest) -> None:
    make, target, options = CASES[case]
    source = make(tmp_path / case.split()[0])
    wanted = _quantized(source, tmp_path / "mapped" / target, options)
    refused = request.getfixturevalue("unmapped")
    assert _quantized(source, tmp_path / "read" / target, options) == wanted
    assert refused


def test_a_header_is_read_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    model = saved(tmp_path / "model.gguf")
    wanted = read_weights(model).read_all()
    request.getfixturevalue("unmapped")
    for first in (1, 7, 64, 1 << 24):
        monkeypatch.setattr(gguf, "_FIRST_BYTES", first)
        model.touch()
        assert read_weights(model).read_all().equals(wanted)
    model.write_bytes(model.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"ends beyond its end|bytes are left"):
        read_weights(model).read_all()
