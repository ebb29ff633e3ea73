"""What the headers of a model's files say beside its tensors goes along."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from exports import weights
from safetensors import safe_open
from safetensors.numpy import save_file

from formats.packed_models import CONFIG
from pyarrowquant import convert


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        found: dict[str, str] = file.metadata()
    return found


@pytest.mark.parametrize("to", ["compressed-tensors", "bitsandbytes", "mlx"])
def test_metadata_of_safetensors(tmp_path: Path, to: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    said = ({"format": "pt", "license": "mine"}, {"format": "flax", "made": "by me"})
    for number, each in enumerate(said):
        layer = {f"model.layers.{number}.mlp.up_proj.weight": weights(0, 64, 64)}
        save_file(layer, model / f"model-0000{number + 1}-of-00002.safetensors", each)
    (model / "config.json").write_text(json.dumps(CONFIG))
    convert(model, tmp_path / "out", to=to)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    found = [metadata(file) for file in files]
    if to == "mlx":  # which has one file
        assert found == [{"format": "mlx", "license": "mine", "made": "by me"}]
    else:
        assert found == [{**each, "format": "pt"} for each in said]
