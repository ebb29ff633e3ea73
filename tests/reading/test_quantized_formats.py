"""What `convert` writes is read back as `dequantize_batch_arrow` decodes it, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
import pyarrow as pa
import pytest
from models import source_for
from quantized_models import assert_same, read
from safetensors.numpy import save_file

import pyarrowquant
from pyarrowquant import convert, dequantize_batch_arrow, numpy_to_arrow_table, quantize_batch_arrow

RNG = np.random.default_rng(5)
WEIGHTS = {
    "model.layers.0.up.weight": RNG.standard_normal((96, 256)).astype(ml_dtypes.bfloat16),
    "model.layers.0.down.weight": RNG.standard_normal((256, 96)).astype(ml_dtypes.bfloat16),
}
NORM = {"model.norm.weight": np.ones(256, ml_dtypes.bfloat16)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    save_file({**WEIGHTS, **NORM}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"model_type": "llama", "dtype": "bfloat16"}))
    return path


def decoded(**settings: Any) -> dict[str, np.ndarray]:
    table = numpy_to_arrow_table({name: w.astype(np.float32) for name, w in WEIGHTS.items()})
    result = quantize_batch_arrow(table, method="mse", **settings)
    rows = dequantize_batch_arrow(result).to_pylist()
    return {
        row["layer_name"]: np.array(row["weights"], np.float32).reshape(row["shape"])
        for row in rows
    }


def assert_decodes(path: Path, **settings: Any) -> None:
    found = read(path)
    for name, expected in decoded(**settings).items():
        assert_same(found.pop(name), expected)
    assert found.keys() <= NORM.keys()


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("zero_point", ["symmetric", "integer"])
@pytest.mark.parametrize("group_size", [32, -1])
def test_compressed_tensors(
    model: Path, tmp_path: Path, bits: int, zero_point: str, group_size: int
) -> None:
    said = {"bit_width": bits, "zero_point": zero_point, "group_size": group_size}
    convert(model, tmp_path / "out", to="compressed-tensors", **said)
    assert_decodes(tmp_path / "out", scale_dtype="bfloat16", **said)


@pytest.mark.parametrize(
    ("bits", "zero_point"), [(4, "symmetric"), (5, "symmetric"), (8, "symmetric")]
)
def test_gguf(model: Path, tmp_path: Path, bits: int, zero_point: str) -> None:
    said = {"bit_width": bits, "zero_point": zero_point, "group_size": 32}
    convert(source_for(model, "gguf"), tmp_path / "out.gguf", **said)
    assert_decodes(tmp_path / "out.gguf", scale_dtype="float16", **said)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero_point", ["symmetric", "integer", "float"])
@pytest.mark.parametrize("group_size", [16, 64, -1])
def test_onnx(model: Path, tmp_path: Path, bits: int, zero_point: str, group_size: int) -> None:
    if (bits, zero_point) == (8, "float"):  # which the node lacks
        zero_point = "integer"
    said = {"bit_width": bits, "zero_point": zero_point, "group_size": group_size}
    convert(model, tmp_path / "out.onnx", tensors_only=True, **said)
    assert_decodes(tmp_path / "out.onnx", **said)


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out"])
def test_tables(model: Path, tmp_path: Path, name: str) -> None:
    to = None if "." in name else "parquet"
    convert(model, tmp_path / name, to=to, bit_width=3, zero_point="float")
    assert_decodes(tmp_path / name, bit_width=3, zero_point="float")


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_mlx(model: Path, tmp_path: Path, bits: int) -> None:
    """Biases are rounded, so MLX itself is the judge."""
    convert(model, tmp_path / "out", to="mlx", bit_width=bits, group_size=32)
    tensors = mx.load(str(tmp_path / "out" / "model.safetensors"))
    found = read(tmp_path / "out")
    for name, one in found.items():
        module = name.removesuffix(".weight")
        if f"{module}.scales" in tensors:
            expected = mx.dequantize(
                tensors[name],
                tensors[f"{module}.scales"].astype(mx.float32),
                tensors[f"{module}.biases"].astype(mx.float32),
                group_size=32,
                bits=bits,
            )
            np.testing.assert_allclose(one, np.array(expected), rtol=1e-6, atol=1e-7)
            assert one.shape == WEIGHTS[name].shape
    assert found.keys() == {*WEIGHTS, *NORM}


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_other_modes_of_mlx(tmp_path: Path, mode: str) -> None:
    group, bits = {"mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}[mode]
    weight = mx.array(RNG.standard_normal((8, 128)).astype(np.float32))
    packed, scales = mx.quantize(weight, group_size=group, bits=bits, mode=mode)[:2]
    mx.save_safetensors(
        str(tmp_path / "model.safetensors"), {"up.weight": packed, "up.scales": scales}
    )
    quantization = {"group_size": group, "bits": bits, "mode": mode}
    (tmp_path / "config.json").write_text(json.dumps({"quantization": quantization}))
    expected = mx.dequantize(packed, scales, group_size=group, bits=bits, mode=mode)
    found = read(tmp_path)
    assert found.keys() == {"up.weight"}
    assert_same(found["up.weight"], np.array(expected.astype(mx.float32)))


def test_small_layers_are_decoded_into_one_batch(model: Path, tmp_path: Path) -> None:
    convert(model, tmp_path / "out", to="compressed-tensors")
    batches = list(pyarrowquant.read_weights(tmp_path / "out"))
    together = [set(batch["layer_name"].to_pylist()) for batch in batches]
    assert WEIGHTS.keys() in together
    size = 4 * max(weight.size for weight in WEIGHTS.values())
    again = list(pyarrowquant.read_weights(tmp_path / "out", batch_bytes=size))
    assert all(batch.num_rows == 1 for batch in again)
    assert pa.Table.from_batches(again) == pa.Table.from_batches(batches)
