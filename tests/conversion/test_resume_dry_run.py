"""A dry run with --resume says whether an interrupted run can be continued, or why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import failed, succeeded
from exports import files

import pyarrowquant
from pyarrowquant import Continued

DRY = ["--resume", "--dry-run"]


def test_it_says_what_is_done(model: Path, interrupted: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    said = succeeded("quantize", model, interrupted, *DRY)
    assert said.startswith("An interrupted run would go on: 132 kB of weights are done\n")
    found = json.loads(succeeded("quantize", model, interrupted, *DRY, "--json"))
    assert found["continued"] == {"bytes": 131632, "is_complete": False}
    assert files(tmp_path) == before
    planned = pyarrowquant.plan(model, interrupted, resume=True)
    assert planned.continued == Continued(131632, is_complete=False)
    assert pyarrowquant.plan(model, interrupted).continued is None


def test_it_says_why_not(model: Path, interrupted: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    said = failed("quantize", model, interrupted, *DRY, "--bits", 3)
    assert "'out.parquet' cannot be continued: bit_width was 4, now is 3" in said
    shard = model / "model-00002-of-00004.safetensors"
    shard.touch()
    said = failed("quantize", model, interrupted, *DRY)
    assert "cannot be continued: the source has changed" in said
    assert files(tmp_path) == before


def test_it_says_that_there_is_nothing(model: Path, tmp_path: Path) -> None:
    said = succeeded("quantize", model, tmp_path / "new.parquet", *DRY)
    assert said.startswith("There is no interrupted run to go on from: a new one would begin\n")
    assert not list(tmp_path.glob(".new*"))


def test_it_says_that_only_the_place_is_left(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrowquant.conversion.partial.work as work

    def fails(*_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr(work.Work, "publish", fails)
        failed("quantize", model, tmp_path / "out.parquet")
    said = succeeded("quantize", model, tmp_path / "out.parquet", *DRY)
    assert said.startswith("An interrupted run is complete: it would only get its place\n")
