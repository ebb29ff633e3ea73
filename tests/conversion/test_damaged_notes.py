"""Damaged files of interrupted runs: each is an error that names it, and a new run works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run
from safetensors.numpy import save_file

from pyarrowquant.conversion.partial.checksums import checked, with_checksum
from pyarrowquant.conversion.partial.work import Work

DEEP = "[" * 5000 + "]" * 5000


class Killed(BaseException):
    """Ends a run as nothing of it foresees."""


def killed_after(method: str, *arguments: object) -> Path:
    """Run until a method of the work was called once; gives its folder."""
    original = getattr(Work, method)
    folders: list[Path] = []

    def call(work: Work, *given: Any) -> None:
        original(work, *given)
        folders.append(Path(work.kept_in))
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Work, method, call)
        with pytest.raises(Killed):
            run("quantize", *arguments)
    return folders[0]


def check(file: Path, *arguments: object) -> None:
    result = run("quantize", *arguments, "--resume")
    assert result.exit_code == 1, result.output
    assert f"{file.name}' of an earlier run is damaged" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert run("quantize", *arguments).exit_code == 0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "torch_dtype": "float32"}')
    rng = np.random.default_rng(0)
    save_file(
        {f"l.{i}.weight": rng.standard_normal((8, 256), np.float32) for i in (0, 1)},
        folder / "model.safetensors",
    )
    return folder


@pytest.mark.parametrize(
    ("method", "name", "options"),
    [
        ("complete", "complete.json", []),
        ("add", "run.json", []),
        ("add", "recipe.json", ["--bits-per-weight", "6"]),
    ],
)
def test_notes_nested_deeply(
    tmp_path: Path, source: Path, method: str, name: str, options: list[str]
) -> None:
    arguments = [source, tmp_path / "out.parquet", *options]
    file = killed_after(method, *arguments) / name
    file.write_bytes(with_checksum(DEEP))
    check(file, *arguments)


@pytest.mark.parametrize(
    "totals", [{}, [], "x", None, {"layers": 2}, {"stored_bits": None}, {"skipped": ["x"]}]
)
def test_totals_that_are_none(tmp_path: Path, source: Path, totals: object) -> None:
    arguments = [source, tmp_path / "out.parquet"]
    file = killed_after("complete", *arguments) / "complete.json"
    said = json.loads(checked(file.read_bytes()))
    more = said["totals"] if isinstance(totals, dict) and len(totals) == 1 else {}
    said["totals"] = {**more, **totals} if isinstance(totals, dict) else totals
    if totals == {"layers": 2}:
        del said["totals"]["norm"]
    file.write_bytes(with_checksum(json.dumps(said)))
    check(file, *arguments)


def test_times_beyond_all_calendars(tmp_path: Path, source: Path) -> None:
    arguments = [source, tmp_path / "out.parquet"]
    file = killed_after("complete", *arguments) / "complete.json"
    said = json.loads(checked(file.read_bytes()))
    said["run"]["source"][0]["modified"] = 10**40
    file.write_bytes(with_checksum(json.dumps(said)))
    check(file, *arguments)


NOTES = [
    ("complete", "complete.json", []),
    ("add", "run.json", []),
    ("add", "00000001.arrow", []),
    ("add", "recipe.json", ["--bits-per-weight", "6"]),
    ("note_done", "done.json", ["--to", "mlx"]),
]


@pytest.mark.parametrize(("method", "name", "options"), NOTES)
def test_a_changed_bit_of_notes_is_seen(
    tmp_path: Path, source: Path, method: str, name: str, options: list[str]
) -> None:
    """Whatever it says: also of numbers, and of codes, which would go into the output."""
    arguments = [source, tmp_path / ("out" if "mlx" in options else "out.parquet"), *options]
    file = killed_after(method, *arguments) / name
    folder = shutil.copytree(file.parent, tmp_path / "kept", copy_function=shutil.copy2)
    whole = file.read_bytes()
    for at in range(0, len(whole), len(whole) // 12):
        shutil.rmtree(file.parent)
        shutil.copytree(folder, file.parent, copy_function=shutil.copy2)
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        file.write_bytes(data)
        result = run("quantize", *arguments, "--resume")
        assert result.exit_code == 1, (at, result.output)
        assert f"{name}' of an earlier run is damaged" in result.stderr
