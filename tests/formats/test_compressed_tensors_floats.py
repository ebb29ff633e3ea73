"""Layers of floats for transformers: each tensor by the bytes that a table has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from exports import decoded, weights

from formats.packed_models import CONFIG, config_of, read_model, results_of, saved
from pyarrowquant import Recipe, Rule, read_weights
from pyarrowquant.formats import write_compressed_tensors

UP, DOWN = "model.layers.0.up.weight", "model.layers.1.down.weight"
E4M3 = ml_dtypes.float8_e4m3fn
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
E2M1 = np.concatenate([E2M1, -E2M1])
NUMPY = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": E4M3,
    "U8": np.uint8,
}
Arrays = dict[str, np.ndarray]


def arrays_of(folder: Path, name: str) -> Arrays:
    """The tensors of a layer, by the ends of their names."""
    return {
        tensor.removeprefix(name): np.frombuffer(data, NUMPY[dtype]).reshape(shape)
        for tensor, (dtype, shape, data) in read_model(folder).items()
        if tensor.startswith(name)
    }


def by_definition(parts: Arrays, columns: int) -> np.ndarray:
    """Weights by what compressed-tensors says of its formats, in float32."""
    if "" in parts:
        codes = parts[""].astype(np.float32)
    else:
        pairs = parts["_packed"]
        codes = E2M1[np.stack([pairs & 15, pairs >> 4], 2).reshape(len(pairs), -1)]
    scales = parts["_scale"]
    scales = 2.0 ** (scales.astype(int) - 127) if scales.dtype == np.uint8 else scales.astype(float)
    if "_global_scale" in parts:
        scales = scales / parts["_global_scale"]
    rows = len(codes)
    if scales.shape == (1,):
        scales = scales.reshape(1, 1)
    elif len(scales) != rows:
        scales = np.repeat(scales, 128, 0)[:rows]
    width = 128 if columns // scales.shape[1] > 100 and scales.shape[1] > 1 else None
    spread = np.repeat(scales, width or columns // scales.shape[1], 1)[:, :columns]
    return (codes * spread).astype(np.float32)


def model_of(folder: Path, rows: int, columns: int, dtype: str = "float32") -> Path:
    kinds = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
    layers = {name: weights(i, rows, columns) for i, name in enumerate((UP, DOWN))}
    tensors = {name: array.astype(kinds[dtype]) for name, array in layers.items()}
    return saved(folder, tensors, {**CONFIG, "dtype": dtype})


@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("encoding", "group_size", "format_name", "shapes"),
    [
        ("fp8", -1, "float-quantized", {"": (130, 256), "_scale": (130, 1)}),
        ("fp8", "tensor", "float-quantized", {"": (130, 256), "_scale": (1,)}),
        ("fp8", "block", "float-quantized", {"": (130, 256), "_scale": (2, 2)}),
        ("mxfp8", None, "mxfp8-quantized", {"": (130, 256), "_scale": (130, 8)}),
        ("mxfp4", None, "mxfp4-pack-quantized", {"_packed": (130, 128), "_scale": (130, 8)}),
        (
            "nvfp4",
            None,
            "nvfp4-pack-quantized",
            {"_packed": (130, 128), "_scale": (130, 16), "_global_scale": (1,)},
        ),
    ],
)
def test_decodes_to_the_same_values(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    group_size: int | str | None,
    format_name: str,
    shapes: dict[str, tuple[int, ...]],
    dtype: str,
    method: str,
) -> None:
    monkeypatch.setattr("pyarrowquant._core.laying._BYTES_A_PIECE", 1000)
    model = model_of(tmp_path / "model", 130, 256, dtype)
    scales = {"scale_dtype": dtype} if encoding == "fp8" else {}
    settings: dict[str, Any] = {"encoding": encoding, "group_size": group_size, **scales}
    results = results_of(model, method=method, **settings)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    config = config_of(tmp_path / "out")
    assert config["format"] == format_name
    assert config.get("dequantize", False) == (dtype != "bfloat16" and encoding != "fp8")
    again = {
        row["layer_name"]: np.frombuffer(row["weights"], np.float32).reshape(row["shape"])
        for batch in read_weights(tmp_path / "out")
        for row in batch.to_pylist()
    }
    for name, values in decoded(results).items():
        parts = arrays_of(tmp_path / "out", name)
        assert {end: part.shape for end, part in parts.items()} == shapes
        np.testing.assert_array_equal(by_definition(parts, 256), values)
        np.testing.assert_array_equal(again[name], values)


def test_blocks_of_wide_layers_of_few_rows(tmp_path: Path) -> None:
    """They have more scales than rows, and no whole number of them a row."""
    model = model_of(tmp_path / "model", 3, 1280)
    results = results_of(model, encoding="fp8", group_size="block")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    for name, values in decoded(results).items():
        parts = arrays_of(tmp_path / "out", name)
        np.testing.assert_array_equal(by_definition(parts, 1280), values)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"encoding": "fp8", "group_size": 64},
            "group_size 64 is none that fp8 has there: quantize with group_size -1, 'tensor' or "
            "'block'",
        ),
        (
            {"encoding": "fp8", "group_size": "block"},
            "200 columns are no multiple of the 128 of a block",
        ),
        ({"encoding": "nvfp4"}, "200 columns are no multiple of group_size 16"),
        (
            {"encoding": "nf4"},
            "encoding 'nf4' must be one of 'int', 'fp8', 'mxfp8', 'mxfp4', 'nvfp4'",
        ),
        ({"encoding": "fp8"}, 'its scales are not bfloat16: quantize with scale_dtype="bfloat16"'),
    ],
)
def test_refusals(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    model = model_of(tmp_path / "model", 4, 200, "bfloat16")
    results = results_of(model, **settings)
    with pytest.raises(ValueError, match="compressed-tensors cannot hold layer") as caught:
        write_compressed_tensors(results, tmp_path / "out", model=model)
    text = f"compressed-tensors cannot hold layers '{UP}', '{DOWN}': {problem}\n"
    assert text in str(caught.value)
    assert "or of encoding fp8 with group_size -1, 'tensor' or 'block'" in str(caught.value)


@pytest.mark.parametrize("bits", [4, 8])
def test_encodings_mix(tmp_path: Path, bits: int) -> None:
    """Each group says its format, and targets its own layers."""
    model = model_of(tmp_path / "model", 4, 256)
    recipe = Recipe([Rule("*.up.*", encoding="mxfp4")])
    results = results_of(model, recipe, bit_width=bits, zero_point="symmetric")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    config = config_of(tmp_path / "out")
    assert config["format"] == "mixed-precision"
    groups = list(config["config_groups"].values())
    assert [group["format"] for group in groups] == ["pack-quantized", "mxfp4-pack-quantized"]
    assert ["down" in group["targets"][0] for group in groups] == [True, False]
