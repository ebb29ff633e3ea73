"""Data beside ONNX models after a kill: what is old goes, what is of others stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from commands import run
from exports import files


@pytest.mark.parametrize("how", [Path.rename, shutil.copyfile])
@pytest.mark.parametrize("name", ["kept.onnx", "out.onnx.bak"])
def test_data_of_a_renamed_or_copied_onnx_model_stays(
    model: Path, tmp_path: Path, how: Callable[[Path, Path], object], name: str
) -> None:
    out, kept = tmp_path / "out.onnx", tmp_path / name
    assert run("quantize", model, out, "--tensors-only").exit_code == 0
    how(out, kept)
    before = files(tmp_path)
    before.pop("out.onnx", None)
    for bits in (8, 2):
        assert (
            run("quantize", model, out, "--tensors-only", "--bits", bits, "--overwrite").exit_code
            == 0
        )
        after = files(tmp_path)
        assert before.items() <= after.items()
        onnx.load(kept)
        onnx.load(out)
        assert len(after) == len(before) + 2  # the data of what was replaced is gone


def test_data_of_no_model_stays(model: Path, tmp_path: Path) -> None:
    mine = tmp_path / f"out.onnx.{'0' * 16}.data"
    mine.write_text("mine")
    for bits in (8, 4):
        command = ["quantize", model, tmp_path / "out.onnx", "--tensors-only", "--overwrite"]
        assert run(*command, "--bits", bits).exit_code == 0
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("options", [["--overwrite"], ["--overwrite", "--resume"]])
def test_old_onnx_data_goes_after_a_kill(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """Killed where the new model has its place, and the old data is still there."""
    out = tmp_path / "out.onnx"
    assert run("quantize", model, out, "--tensors-only", "--bits", 8).exit_code == 0

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pyarrowquant.conversion.partial.publishing.remove_unused_data", killed)
        assert run("quantize", model, out, "--tensors-only", "--overwrite").exit_code != 0
    assert len(list(tmp_path.glob("*.data"))) == 2
    assert run("quantize", model, out, "--tensors-only", *options).exit_code == 0
    assert len(list(tmp_path.glob("*.data"))) == 1
    onnx.load(out)


def test_placed_onnx_data_goes_when_a_run_begins_anew(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed where new data has its place, and the model has not."""
    out = tmp_path / "out.onnx"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pyarrowquant.conversion.partial.publishing.Publishing._put", killed)
        assert run("quantize", model, out, "--tensors-only").exit_code != 0
    assert [path.suffix for path in tmp_path.glob("out.onnx*")] == [".data"]
    assert run("quantize", model, out, "--tensors-only", "--bits", 8).exit_code == 0
    assert len(list(tmp_path.glob("out.onnx*"))) == 2
    onnx.load(out)
