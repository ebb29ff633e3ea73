"""The size of a GGUF file as a budget."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import gguf_models
import numpy as np
import pytest
from commands import failed, succeeded
from safetensors.numpy import save_file

from pyarrowquant import convert, plan

# one of Q8_0, as all files of `saved` have it
pytestmark = pytest.mark.filterwarnings("ignore:Quantized already")


def model(path: Path, columns: int = 512, blocks: int = 12) -> Path:
    rng = np.random.default_rng(0)
    tensors = {
        f"blk.{i}.{name}.weight": rng.standard_normal((64, columns)).astype(np.float16) * (i + 1)
        for i in range(blocks)
        for name in ("up", "down")
    }
    tensors["norm.weight"] = np.ones(columns + 3, np.float32)
    return gguf_models.saved(path, tensors)


def types(path: Path) -> list[str]:
    return [tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors]


@pytest.mark.parametrize("columns", [512, 96])
@pytest.mark.parametrize("part", [0.3, 0.4, 0.5])
def test_the_file_is_no_larger_and_not_much_smaller(
    tmp_path: Path, columns: int, part: float
) -> None:
    source = model(tmp_path / "m.gguf", columns)
    size = int(part * source.stat().st_size)
    done = convert(source, tmp_path / "s.gguf", size=size)
    assert done.bytes == (tmp_path / "s.gguf").stat().st_size
    assert size - done.weights * 0.3 / 8 < done.bytes <= size


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_the_smallest_size_is_exact(tmp_path: Path, kind: str) -> None:
    source = tmp_path / f"m.{kind}"
    if kind == "gguf":
        model(source)
    else:
        rng = np.random.default_rng(0)
        weights = {f"{i}.ü.weight": rng.standard_normal((8, 256), np.float32) for i in range(9)}
        save_file({**weights, "norm": np.ones(5, np.float32), "n": np.arange(3)}, source)
    target = tmp_path / "s.gguf"
    said = failed("quantize", source, target, "--size", "1K", code=2)
    assert "Invalid size: 1,000 bytes. The smallest output has " in said
    smallest = int(said.split(" has ")[1].split()[0].replace(",", ""))
    assert said == failed("quantize", source, target, "--size", "1K", "--dry-run", code=2)
    assert convert(source, target, size=smallest).bytes == smallest
    assert f"{smallest:,}" in failed(
        "quantize", source, tmp_path / "t.gguf", "--size", smallest - 1, code=2
    )


def test_the_largest_is_taken_where_all_fit(tmp_path: Path) -> None:
    source = model(tmp_path / "m.gguf")
    convert(source, tmp_path / "s.gguf", size=10**12)
    assert types(tmp_path / "s.gguf").count("Q8_0") == 25


def test_sizes_are_exact_with_units(tmp_path: Path) -> None:
    source = model(tmp_path / "m.gguf")
    said = json.loads(
        succeeded("quantize", source, tmp_path / "s.gguf", "--size", "0.4M", "--json")
    )
    assert 390_000 < said["bytes"] <= 400_000


def test_a_floor_and_a_size_hold_together(tmp_path: Path) -> None:
    source = model(tmp_path / "m.gguf")
    floor = {"relative_error": 0.05}
    done = convert(source, tmp_path / "s.gguf", size=700_000, quality_floor=floor)
    assert (done.missed, done.bytes <= 700_000) == ((), True)
    said = failed(
        *("quantize", source, tmp_path / "t.gguf", "--size", "0.4M"),
        *("--quality-floor", "relative_error=0.05"),
    )
    assert "The smallest output that passes the quality_floor has " in said


def test_an_interrupted_run_goes_on_only_with_the_same_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = model(tmp_path / "m.gguf"), tmp_path / "s.gguf"
    with monkeypatch.context() as patch:
        patch.setattr("pyarrowquant.conversion.partial.results.PlacedResults.finish", None)
        with pytest.raises(TypeError), pytest.warns(UserWarning, match="What is done stays"):
            convert(source, target, size=400_000)
    with pytest.raises(ValueError, match="size was 400000, now is 500000"):
        convert(source, target, size=500_000, resume=True)
    resumed = convert(source, target, size=400_000, resume=True).bytes
    assert resumed == convert(source, tmp_path / "t.gguf", size=400_000).bytes
    assert target.read_bytes() == (tmp_path / "t.gguf").read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "much"], "'much' is no size such as 600M"),
        (["--size", "0"], "Invalid size: 0. Must be a number of bytes, 1 or more"),
        (["--size", "1M", "--bits", "4"], "--bits and --size exclude each other"),
        (["--size", "1M", "--bits-per-weight", "4"], "--size and --bits-per-weight exclude"),
        (["--size", "1M", "--continue-on-error"], "--size and --continue-on-error exclude"),
        (["--size", "1M", "--recipe", "Q4_K_M"], "leave out --size"),
        (["--size", "1M", "--encoding", "q4_k"], "--size fits bit widths"),
        (["--size", "1M", "--to", "parquet"], "--size is for --to gguf, whose"),
    ],
)
def test_what_a_size_cannot_be(tmp_path: Path, options: list[str], said: str) -> None:
    source = model(tmp_path / "m.gguf")
    error = failed("quantize", source, tmp_path / "s.gguf", *options, code=2)
    assert said in " ".join(error.split())


def test_a_plan_has_the_types(tmp_path: Path) -> None:
    source = model(tmp_path / "m.gguf")
    planned = plan(source, tmp_path / "s.gguf", size=400_000)
    done = convert(source, tmp_path / "s.gguf", size=400_000)
    found = {each.name: each.settings.encoding for each in planned.layers if each.settings}
    assert len(found) == done.layers
    by_name = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "s.gguf").tensors}
    for name, encoding in found.items():
        kind = by_name[str(name)].tensor_type.name
        assert kind == ("Q8_0" if encoding == "int" else encoding.upper())
