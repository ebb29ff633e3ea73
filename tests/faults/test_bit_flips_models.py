"""Files of weights of which one bit is wrong."""

from __future__ import annotations

from pathlib import Path

import flip_files
import pytest
from attempts import survey

INSPECT = ["inspect", "FILE"]
QUANTIZE = ["quantize", "FILE", "out.parquet", "--overwrite"]
NAMES = {
    "weights.arrow": 2,
    "weights.ipc": 2,
    "weights.parquet": 2,
    "views.arrow": 2,
    "weights.safetensors": 1,
    "weights.npz": 1,
    "weights.gguf": 1,
    "weights.onnx": 9,  # most of which are numbers
    "fp8.safetensors": 1,
    "packed.safetensors": 2,
    "mlx.safetensors": 2,
    "nested.safetensors": 5,
    "codes.gguf": 5,
}


@pytest.mark.parametrize("command", [INSPECT, QUANTIZE, ["compare", "FILE", "results.arrow"]])
@pytest.mark.parametrize("name", NAMES)
def test_no_bit_of_a_model_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flip_files.make(tmp_path / "results.arrow")
    flip_files.make(tmp_path / name)
    step = NAMES[name] * (1 if command is INSPECT else 12)
    count, wrong = survey(
        "flips", tmp_path / "log", path=str(tmp_path / name), command=command, step=step, bits=1
    )
    assert count >= (tmp_path / name).stat().st_size // step
    assert wrong == []
