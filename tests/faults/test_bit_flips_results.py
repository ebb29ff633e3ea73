"""Files of results of which one bit is wrong."""

from __future__ import annotations

from pathlib import Path

import flip_files
import pytest
from attempts import survey

DEQUANTIZE = ["dequantize", "FILE", "decoded.safetensors", "--overwrite"]
COMPARE = ["compare", "weights.arrow", "FILE"]
REPORT = ["report", "FILE", "--html", "page.html", "--overwrite"]


@pytest.mark.parametrize(
    ("name", "command", "step", "bits"),
    [
        ("results.arrow", ["inspect", "FILE"], 1, 1),
        ("results.arrow", DEQUANTIZE, 3, 1),
        ("results.arrow", COMPARE, 3, 1),
        ("results.ipc", ["inspect", "FILE"], 2, 1),
        ("results.ipc", DEQUANTIZE, 8, 1),
        ("results.ipc", COMPARE, 8, 1),
        ("results.parquet", ["inspect", "FILE"], 2, 1),
        ("results.parquet", DEQUANTIZE, 8, 1),
        ("results.parquet", COMPARE, 8, 1),
        ("results.feather", REPORT, 97, 1),  # with errors
        ("encoded.arrow", ["inspect", "FILE"], 13, 1),
        ("encoded.arrow", DEQUANTIZE, 31, 1),
        ("encoded.parquet", DEQUANTIZE, 41, 1),
    ],
)
def test_no_bit_of_results_is_a_crash(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    command: list[str],
    step: int,
    bits: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    flip_files.make(tmp_path / "weights.arrow")
    flip_files.make(tmp_path / name)
    count, wrong = survey(
        "flips",
        tmp_path / "log",
        path=str(tmp_path / name),
        command=command,
        step=step,
        bits=bits,
    )
    assert count >= (tmp_path / name).stat().st_size * bits // step
    assert wrong == []
