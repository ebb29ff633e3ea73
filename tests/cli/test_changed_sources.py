"""Sources that somebody writes to or replaces while commands other than quantize read them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_folders
import pytest
from commands import run, succeeded
from exports import files

from pyarrowquant.cli import _read_files
from pyarrowquant.conversion.partial.identity import check_files

# With the file that changes.
COMMANDS = {
    "dequantize results.parquet out.safetensors": "results.parquet",
    "dequantize results.parquet out.arrow": "results.parquet",
    "dequantize results out.parquet": "results/model.arrow",
    "dequantize packed out.safetensors": "packed/model.safetensors",
    "dequantize packed out.parquet": "packed/model.safetensors",
    "dequantize model out.gguf": "model/model.safetensors",
    "compare model results.parquet --json": "results.parquet",
    "compare model packed": "model/model.safetensors",
    "report results.parquet --html out.html": "results.parquet",
    "report packed --original model --html out.html": "model/model.safetensors",
    "inspect packed": "packed/model.safetensors",
    "inspect results.parquet --json": "results.parquet",
    "recipe fit model out.json --bits-per-weight 6.5": "model/model.safetensors",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    hf_folders.write(Path("model"))
    succeeded("quantize", "model", "results.parquet")
    succeeded("quantize", "model", "results", "--to", "arrow")
    succeeded("quantize", "model", "packed", "--to", "compressed-tensors")
    return tmp_path


def overwrite(file: Path) -> None:
    with file.open("r+b") as opened:
        content = opened.read()
        opened.seek(0)
        opened.write(content)


def replace(file: Path) -> None:
    status = file.stat()
    new = file.with_name("new")
    new.write_bytes(file.read_bytes())
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(new, file)


@pytest.mark.parametrize("change", [overwrite, replace])
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_of_them_is_written_or_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: str, change: Callable[[Path], None]
) -> None:
    changed = place / COMMANDS[command]
    before = files(place)

    def check(*arguments: Any) -> None:
        change(changed)
        check_files(*arguments)

    monkeypatch.setattr(_read_files, "check_files", check)
    result = run(*command.split())
    assert result.exit_code == 1
    assert not result.stdout
    said = result.stderr.splitlines()[-1]
    assert "was changed while it was read" in said
    assert changed.name in said
    assert files(place) == before


@pytest.mark.usefixtures("place")
def test_two_sources_may_have_files_of_the_same_name() -> None:
    succeeded("compare", "model", "packed", "--allow-missing")
