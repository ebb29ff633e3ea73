"""Models that are split into several GGUF files, as llama-gguf-split names them."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from pyarrowquant import convert, plan, read_weights

RNG = np.random.default_rng(5)
TENSORS = {
    f"blk.{i}.{name}.weight": (RNG.standard_normal((16, 256)) / 16).astype(np.float32)
    for i in range(3)
    for name in ("attn_q", "ffn_down")
}


def saved(path: Path, most: int = 0) -> list[Path]:
    """Write a model, in files of so many tensors, 0 for one of all."""
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=most)
    writer.add_block_count(3)
    writer.add_name("an example")
    for name, array in TENSORS.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.glob(f"{path.stem}*.gguf"))


@pytest.mark.parametrize("number", [0, 2])
def test_parts_are_one_model(tmp_path: Path, number: int) -> None:
    parts = saved(tmp_path / "m.gguf", 2)
    assert [part.name for part in parts] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    table = read_weights(parts[number]).read_all()
    assert table["layer_name"].to_pylist() == list(TENSORS)
    for row in table.to_pylist():
        assert row["weights"] == TENSORS[row["layer_name"]].tobytes()
    (whole,) = saved(tmp_path / "whole.gguf")
    done = convert(parts[number], tmp_path / "x.gguf")
    convert(whole, tmp_path / "y.gguf")
    assert done.source_bytes == sum(part.stat().st_size for part in parts)
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "y.gguf").read_bytes()
    assert not any(key.startswith("split") for key in gguf.GGUFReader(tmp_path / "x.gguf").fields)


def test_tensors_that_are_kept_come_from_their_parts(tmp_path: Path) -> None:
    parts = saved(tmp_path / "m.gguf", 2)
    recipe = {"rules": [{"match": "*ffn_down*", "skip": True}]}
    convert(parts[0], tmp_path / "x.gguf", recipe=recipe)
    for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors:
        if "ffn_down" in tensor.name:
            assert np.array_equal(tensor.data, TENSORS[tensor.name])
    with pytest.raises(ValueError, match="is the source"):
        convert(parts[0], parts[2], overwrite=True)


def test_parts_that_are_missing_or_of_another_model(tmp_path: Path) -> None:
    parts = saved(tmp_path / "m.gguf", 2)
    other = tmp_path / "other.gguf"
    shutil.copy(parts[0], other)
    with pytest.raises(ValueError, match=r"whose names must be like NAME-00001-of-00003\.gguf"):
        read_weights(other)
    parts[1].rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match=r"the part 'm-00002-of-00003\.gguf' is missing"):
        plan(parts[2], tmp_path / "x.gguf")
    shutil.copy(parts[0], parts[1])
    with pytest.raises(ValueError, match=r"m-00002-of-00003\.gguf: its split\.no must be 1"):
        read_weights(parts[0])
    shutil.copy(saved(tmp_path / "whole.gguf")[0], parts[1])
    with pytest.raises(ValueError, match=r"its split\.count is not 3"):
        read_weights(parts[0])


def test_tensors_are_in_one_part_each(tmp_path: Path) -> None:
    def part(number: int, name: str, tensors: int = 2) -> Path:
        path = tmp_path / f"m-{number:05d}-of-00002.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint16("split.no", number - 1)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", tensors)
        writer.add_tensor(name, np.ones((2, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    part(1, "a.weight")
    with pytest.raises(
        ValueError, match=r"tensor 'a\.weight' is in '.*m-00001-of-00002\.gguf' too"
    ):
        read_weights(part(2, "a.weight"))
    part(1, "a.weight", tensors=3)
    with pytest.raises(ValueError, match=r"split\.tensors\.count is 3, the parts have 2 tensors"):
        read_weights(part(2, "b.weight"))
