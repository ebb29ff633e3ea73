"""A quality floor that is not reached is said, and is no success unless that is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import run
from safetensors.numpy import save_file

from pyarrowquant import convert


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        weights = rng.standard_normal((8, 128), np.float32)
        save_file({f"{number}.weight": weights}, folder / f"{number}.safetensors")
    return folder


@pytest.mark.parametrize(
    ("options", "code"), [([], 1), (["--continue-on-error"], 0), (["--json"], 1)]
)
def test_code_and_closing_lines(
    source: Path, tmp_path: Path, options: list[str], code: int
) -> None:
    out = tmp_path / "out.parquet"
    done = run("quantize", source, out, "--quality-floor", "0.9999999", *options)
    assert done.exit_code == code
    assert out.exists()  # it is what is best
    text = "below the quality_floor of 0.9999999, with 8 bits, the most there are"
    (line,) = [line for line in done.stderr.splitlines() if text in line]
    assert line.startswith("3 layers miss the quality floor: Layer '0.weight' has cosine 0.9")
    if "--json" in options:
        missed = json.loads(done.stdout)["missed"]
        assert [message[:16] for message in missed] == [f"Layer '{n}.weight'"[:16] for n in "012"]
    else:
        assert "quality floor" not in done.stdout  # which is said once


def test_a_floor_that_is_reached(source: Path, tmp_path: Path) -> None:
    done = run("quantize", source, tmp_path / "out.parquet", "--quality-floor", "0.9", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["missed"] == []


def test_it_is_known_after_an_interruption(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrowquant.formats.tables import TableFormat

    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    out = tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(TableFormat, "write", fail)
        assert run("quantize", source, out, "--quality-floor", "0.9999999").exit_code == 1
    done = run("quantize", source, out, "--quality-floor", "0.9999999", "--resume", "--json")
    assert done.exit_code == 1
    assert len(json.loads(done.stdout)["missed"]) == 3


def test_the_library_says_it_in_one_warning(source: Path, tmp_path: Path) -> None:
    for number in range(3, 6):
        weights = np.random.default_rng(number).standard_normal((8, 128), np.float32)
        save_file({f"{number}.weight": weights}, source / f"{number}.safetensors")
    said = "^6 layers miss the quality floor: .* and 3 more$"
    with pytest.warns(UserWarning, match=said) as warned:
        done = convert(source, tmp_path / "out.parquet", quality_floor=0.9999999)
    assert len(warned) == 1
    assert len(done.missed) == 6
