"""Sources that somebody writes to, replaces or removes while a run reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run
from exports import files
from safetensors.numpy import save_file

import pyarrowquant
from pyarrowquant._core import library
from pyarrowquant.conversion.job import Job
from pyarrowquant.conversion.partial.work import Work

KINDS = {
    "parquet": ("out.parquet", "add"),
    "compressed-tensors": ("out", "note_done"),
    "mlx": ("out", "note_done"),
    "bitsandbytes": ("out", "note_done"),
    "gguf": ("out.gguf", "add"),
}


def written(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"layers.{i}.up.weight" for i in range(2)]
    save_file({name: rng.standard_normal((8, 64), np.float32) for name in names}, path)


def overwrite(file: Path, other: bytes) -> None:
    with file.open("r+b") as opened:
        opened.write(other)


def replace(file: Path, other: bytes) -> None:
    new = file.with_name("new")
    new.write_bytes(other)
    os.replace(new, file)


def extend(file: Path, other: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(other)


def remove(file: Path, _other: bytes) -> None:
    file.unlink()


@pytest.mark.parametrize("change", [overwrite, replace, extend, remove])
@pytest.mark.parametrize("kind", KINDS)
def test_an_output_of_neither_model_is_not_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    change: Callable[[Path, bytes], None],
) -> None:
    source, place = tmp_path / "source", tmp_path / "place"
    source.mkdir()
    place.mkdir()
    file = source / "model.safetensors"
    written(file, 1)
    other = file.read_bytes()
    written(file, 0)
    (source / "config.json").write_text('{"model_type": "llama"}')
    name, method = KINDS[kind]
    arguments = ["quantize", source, place / name, "--to", kind, "--overwrite"]
    arguments += ["--tensors-only"] if kind == "gguf" else []
    assert run(*arguments).exit_code == 0
    before = files(place)
    original = getattr(Work, method)

    def call(*noted: object) -> None:
        if file.exists() and file.read_bytes() != other:
            change(file, other)
        original(*noted)

    monkeypatch.setattr(Work, method, call)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "was changed while it was read" in result.stderr.splitlines()[-1]
    assert "--resume" not in result.stderr
    assert files(place) == before


@pytest.mark.parametrize("change", [overwrite, replace, extend, remove])
def test_headers_of_another_file_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, bytes], None]
) -> None:
    """The source changes when it has been opened, and before anything else of it is read."""
    source, out = tmp_path / "model.safetensors", tmp_path / "out.parquet"
    written(source, 1)
    other = source.read_bytes()
    written(source, 0)
    original = Job.run

    def call(job: Job, *arguments: object) -> object:
        change(source, other)
        return original(job, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Job, "run", call)
    result = run("quantize", source, out)
    assert result.exit_code == 1
    assert "model.safetensors" in result.stderr.splitlines()[-1]
    assert files(tmp_path).keys() <= {"model.safetensors"}


@pytest.mark.parametrize("command", ["quantize", "recipe fit"])
def test_layers_are_not_blamed_for_what_was_written_over_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    source = tmp_path / "model.safetensors"
    written(source, 0)
    whole = source.read_bytes()
    original = library._run

    def call(*arguments: Any, **more: Any) -> Any:
        if any(table.nbytes for table in arguments[2]):
            overwrite(source, whole[:-64] + b"\xff" * 64)  # NaN, in memory that is mapped
        return original(*arguments, **more)

    monkeypatch.setattr(library, "_run", call)
    suffix = ".json" if command == "recipe fit" else ".parquet"
    result = run(*command.split(), source, tmp_path / f"out{suffix}", "--bits-per-weight", 5)
    assert result.exit_code == 1
    assert "was changed while it was read" in result.stderr.splitlines()[-1]
    assert files(tmp_path).keys() == {"model.safetensors"}


def test_a_source_may_go_when_the_output_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "model.safetensors", tmp_path / "out.parquet"
    written(source, 0)
    size = source.stat().st_size
    original = Work.publish

    def call(work: Work, *arguments: object) -> None:
        original(work, *arguments)  # type: ignore[arg-type]
        source.unlink()

    monkeypatch.setattr(Work, "publish", call)
    assert pyarrowquant.convert(source, out).source_bytes == size
