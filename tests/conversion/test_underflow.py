"""Conversions count the groups whose scales are too small for their type."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import run
from safetensors.numpy import save_file

from pyarrowquant import Underflow, convert


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((8, 64), np.float32) for name in ("a", "b", "c")}
    weights["a"][1] *= 1e-9
    weights["c"][2:4] *= 1e-9
    path = tmp_path / "tiny.safetensors"
    save_file(weights, path)
    return path


def test_they_are_counted_in_the_closing_lines_and_in_json(tiny: Path, tmp_path: Path) -> None:
    result = run("quantize", tiny, tmp_path / "out.gguf")
    assert result.exit_code == 0, result.output
    assert "6 groups of the layers 'a', 'c' have a scale that its type rounds to 0" in result.stdout
    assert result.stderr == ""
    result = run("quantize", tiny, tmp_path / "json.gguf", "--json")
    expected = [{"layer_name": "a", "groups": 2}, {"layer_name": "c", "groups": 4}]
    assert json.loads(result.stdout)["underflows"] == expected


def test_none_are_not_told_of(tiny: Path, tmp_path: Path) -> None:
    result = run("quantize", tiny, tmp_path / "out.parquet", "--json")
    assert json.loads(result.stdout)["underflows"] == []
    assert "rounds" not in run("quantize", tiny, tmp_path / "text.parquet").stdout


def test_a_run_that_was_interrupted_counts_what_was_done_before(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrowquant.conversion.job as job

    def fail(*_: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "_write", fail)
        with (
            pytest.warns(UserWarning, match="What is done stays"),
            pytest.raises(OSError, match="no room"),
        ):
            convert(tiny, tmp_path / "out.gguf", max_memory=300_000_000)
    done = convert(tiny, tmp_path / "out.gguf", max_memory=300_000_000, resume=True)
    assert done.underflows == (Underflow("a", 2), Underflow("c", 4))
