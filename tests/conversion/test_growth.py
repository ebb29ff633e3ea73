"""Plans of many layers take time that grows as their number does."""

import json
import time
from pathlib import Path

import pytest

from pyarrowquant import plan

COUNTS = 2_000, 16_000


def folder(path: Path, count: int) -> Path:
    """Write a model of layers whose weights are all 0 and take no room."""
    path.mkdir()
    size = 2 * 32 * 64
    header = {
        f"model.layers.{i // 4}.mlp.experts.{i % 4}.up_proj.weight": {
            "dtype": "BF16",
            "shape": [32, 64],
            "data_offsets": [i * size, (i + 1) * size],
        }
        for i in range(count)
    }
    text = json.dumps(header).encode()
    with (path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + count * size)
    (path / "config.json").write_text(json.dumps({"model_type": "olmoe", "dtype": "bfloat16"}))
    return path


def seconds_of_plan(path: Path, to: str) -> float:
    begin = time.process_time()
    planned = plan(path, path.with_name("new"), to=to, group_size=32)
    assert all(layer.settings is not None for layer in planned.layers)
    return time.process_time() - begin


@pytest.mark.parametrize("to", ["parquet", "compressed-tensors", "mlx"])
def test_plans_of_many_layers(tmp_path: Path, to: str) -> None:
    few, many = (folder(tmp_path / str(count), count) for count in COUNTS)
    seconds_of_plan(few, to)  # with what is imported at first
    ratio = seconds_of_plan(many, to) / seconds_of_plan(few, to)
    assert ratio < 3 * COUNTS[1] / COUNTS[0]
