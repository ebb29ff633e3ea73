"""Files of importance in the place of a model."""

from __future__ import annotations

import struct
from pathlib import Path

import hf_folders
import numpy as np
import pytest
from commands import failed
from gguf_models import imatrix
from safetensors.numpy import save_file

from pyarrowquant import read_weights

NAME = "blk.0.ffn_up.weight"
VALUES = np.ones(256, np.float32)


def as_gguf(path: Path) -> Path:
    return imatrix(path, {NAME: (VALUES, np.ones(1))})


def as_list(path: Path) -> Path:
    name = NAME.encode()
    data = struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 1, len(VALUES))
    path.write_bytes(data + VALUES.tobytes())
    return path


def as_tensors(path: Path) -> Path:
    said = '{"format_version": 1, "texts": [], "tokens": 1}'
    metadata = {"pyarrowquant.importance": said}
    save_file({NAME: VALUES, f"{NAME}.count": np.array([1])}, path, metadata)
    return path


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (as_gguf, "some.gguf"),
        (as_gguf, "some.imatrix"),
        (as_list, "some.imatrix"),
        (as_list, "imatrix.dat"),
        (as_tensors, "importance.safetensors"),
    ],
)
def test_it_is_told_with_what_it_is_for(tmp_path: Path, make: object, name: str) -> None:
    assert callable(make)
    path = make(tmp_path / name)
    said = (
        f"{path} is a file of importance, and no model. It goes along with one: "
        f"`pyarrowquant quantize MODEL OUTPUT --imatrix {name}`"
    )
    for command in (["quantize", path, tmp_path / "out.gguf"], ["inspect", path]):
        assert failed(*command) == f"Error: {said}\n"
    with pytest.raises(ValueError, match="is a file of importance"):
        read_weights(path)


def test_a_folder_that_has_one_beside_its_model(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model", hf_folders.llama())
    names = read_weights(folder).read_all()["layer_name"]
    as_tensors(folder / "importance.safetensors")
    assert read_weights(folder).read_all()["layer_name"] == names


def test_other_files_of_these_suffixes_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes(b"any")
    assert "x.dat: unknown suffix" in failed("quantize", path, tmp_path / "out.gguf")
