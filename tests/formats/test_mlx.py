"""Folders for MLX, decoded and multiplied by MLX itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import OnlyStream, plain
from exports import KEPT_ARRAYS, codes_of, decoded, files, kept_table, quantized, spread, weights
from safetensors import safe_open
from safetensors.numpy import save_file

from pyarrowquant import Recipe, Rule, plan, quantize_batch_arrow, quantize_stream
from pyarrowquant.formats import write_mlx

SETTINGS = [
    (bits, group, zero_point)
    for bits in (2, 3, 4, 5, 6, 8)
    for group in (32, 64, 128)
    for zero_point in ("integer", "float", "symmetric")
]
NUMPY = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def load(folder: Path) -> dict[str, mx.array]:
    return mx.load(str(folder / "model.safetensors"))


def as_numpy(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32))


def dequantized(tensors: dict[str, mx.array], module: str, bits: int, group: int) -> np.ndarray:
    w, s, b = (tensors[f"{module}.{part}"] for part in ("weight", "scales", "biases"))
    return as_numpy(mx.dequantize(w, s, b, group_size=group, bits=bits))


@pytest.mark.parametrize(("bits", "group", "zero_point"), SETTINGS)
def test_float32_scales_decode_to_the_same_values(
    tmp_path: Path, bits: int, group: int, zero_point: str
) -> None:
    """Scales of 11 bits times codes of 8 are exact, and so is all but a float zero-point."""
    result = quantized(
        weights(bits, 5, 384),
        bit_width=bits,
        group_size=group,
        zero_point=zero_point,
        scale_dtype="float16",
    )
    write_mlx(result, tmp_path / "out", dtype="float32")
    found = dequantized(load(tmp_path / "out"), "a", bits, group)
    expected = decoded(result)["a.weight"]
    if zero_point != "float":
        np.testing.assert_array_equal(found, expected)
        return
    # q * s + b: two roundings of numbers that are no larger than 2 max(q, z) s
    scales = spread(result["scales"][0].as_py(), result.to_pylist()[0])
    assert (np.abs(found - expected) <= 2**-22 * 2**bits * np.abs(scales)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("bits", "group", "zero_point"), SETTINGS)
def test_biases_are_rounded_once(
    tmp_path: Path, bits: int, group: int, zero_point: str, dtype: str
) -> None:
    result = quantized(
        weights(bits, 3, 256),
        bit_width=bits,
        group_size=group,
        zero_point=zero_point,
        scale_dtype=dtype,
    )
    write_mlx(result, tmp_path / "out", dtype=dtype)
    tensors = load(tmp_path / "out")
    row = result.to_pylist()[0]
    scales, zeros = (np.asarray(row[key], np.float32) for key in ("scales", "zero_points"))
    biases = (-zeros * scales).astype(NUMPY[dtype]).astype(np.float32)
    assert np.array(tensors["a.weight"]).tobytes() == row["quantized_data"]
    np.testing.assert_array_equal(as_numpy(tensors["a.scales"]).ravel(), scales)
    np.testing.assert_array_equal(as_numpy(tensors["a.biases"]).ravel(), biases)
    # MLX computes q * s + b in the dtype itself: a rounding of the product, one of the sum.
    wide = {key: t.astype(mx.float32) if key != "a.weight" else t for key, t in tensors.items()}
    exact = codes_of(row) * spread(scales, row).astype(np.float64) + spread(biases, row)
    assert np.abs(dequantized(wide, "a", bits, group) - exact).max() <= 1e-6 * np.abs(exact).max()
    unit = float(ml_dtypes.finfo(NUMPY[dtype]).eps)
    largest = 2**bits * np.abs(spread(scales, row)) + np.abs(spread(biases, row))
    assert (np.abs(dequantized(tensors, "a", bits, group) - exact) <= unit * largest).all()


def test_documented_error_of_biases(tmp_path: Path) -> None:
    """0.008 steps for 4 bits in float16."""
    result = quantized(
        weights(1, 64, 1024), group_size=64, zero_point="float", scale_dtype="float16"
    )
    write_mlx(result, tmp_path / "out")
    tensors = load(tmp_path / "out")
    scales, zeros = (np.array(result[key].to_pylist()[0]) for key in ("scales", "zero_points"))
    steps = np.abs(as_numpy(tensors["a.biases"]).ravel() / scales + zeros)
    assert 0.002 < steps.max() <= 0.008


@pytest.mark.parametrize(("bits", "group", "zero_point"), SETTINGS)
def test_quantized_matmul(tmp_path: Path, bits: int, group: int, zero_point: str) -> None:
    result = quantized(weights(2, 64, 512), bit_width=bits, group_size=group, zero_point=zero_point)
    write_mlx(result, tmp_path / "out", dtype="float32")
    tensors = load(tmp_path / "out")
    x = weights(3, 4, 512)
    product = mx.quantized_matmul(
        mx.array(x),
        tensors["a.weight"],
        tensors["a.scales"],
        tensors["a.biases"],
        transpose=True,
        group_size=group,
        bits=bits,
    )
    w = decoded(result)["a.weight"].astype(np.float64)
    # Each of 512 products and sums is off by at most 2^-24 of itself, twice for the bias.
    row = result.to_pylist()[0]
    largest = 2**bits * np.abs(spread(row["scales"], row))
    bound = 2 * 512 * 2**-24 * (np.abs(x).astype(np.float64) @ largest.T)
    assert (np.abs(as_numpy(product) - x @ w.T) <= bound).all()
    assert np.abs(as_numpy(product) - x @ w.T).max() <= 1e-3 * np.abs(x @ w.T).max()


def test_layers_in_one_group(tmp_path: Path) -> None:
    """A row of 64 columns is one group of 64, whatever larger group_size was asked for."""
    for group in (-1, 128):
        result = quantized(weights(1, 3, 64), group_size=group, scale_dtype="float16")
        write_mlx(result, tmp_path / str(group), dtype="float32")
        found = dequantized(load(tmp_path / str(group)), "a", 4, 64)
        np.testing.assert_array_equal(found, decoded(result)["a.weight"])
        config = json.loads((tmp_path / str(group) / "config.json").read_text())
        said = {"group_size": 64, "bits": 4, "mode": "affine"}
        assert config == {"quantization": said, "quantization_config": said}


def test_kept_layers_are_the_same_bytes(tmp_path: Path) -> None:
    kept = OnlyStream(kept_table().to_reader(max_chunksize=2))
    result = quantized(weights(1, 3, 64), group_size=32, scale_dtype="float16")
    write_mlx(result, tmp_path / "out", unquantized=kept)
    tensors = load(tmp_path / "out")
    assert set(tensors) == {"a.weight", "a.scales", "a.biases", *KEPT_ARRAYS}
    for name, array in KEPT_ARRAYS.items():
        assert tensors[name].shape == array.shape
        assert str(tensors[name].dtype) == f"mlx.core.{array.dtype.name}"
        bits = mx.view(tensors[name], {4: mx.uint32, 2: mx.uint16}[array.itemsize])
        assert np.array(bits).tobytes() == array.tobytes()


def test_kept_lists(tmp_path: Path) -> None:
    half = np.arange(6, dtype=np.float16)
    kept = pa.table({"layer_name": ["x"], "weights": pa.array([half]), "shape": [[2, 3]]})
    write_mlx(quantized(), tmp_path / "out", unquantized=kept)
    np.testing.assert_array_equal(np.array(load(tmp_path / "out")["x"]), half.reshape(2, 3))
    kept = plain(["x"], [np.float32([1, 2])]).select(["layer_name", "weights"])
    write_mlx(quantized(), tmp_path / "plain", unquantized=kept, config={"a": 1})
    assert np.array(load(tmp_path / "plain")["x"]).tolist() == [1, 2]
    assert json.loads((tmp_path / "plain" / "config.json").read_text()) == {"a": 1}


def test_tensors_are_aligned_and_safetensors_takes_them(tmp_path: Path) -> None:
    result = quantized(weights(1, 3, 32), group_size=32, scale_dtype="float16")
    write_mlx(result, tmp_path / "out", unquantized=kept_table())
    path = tmp_path / "out" / "model.safetensors"
    with safe_open(path, "np") as file:
        assert file.metadata() == {"format": "mlx"}
        assert file.get_tensor("a.scales").shape == (3, 1)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    header.pop("__metadata__")
    assert size % 8 == 0
    for tensor in header.values():
        assert tensor["data_offsets"][0] % {"U32": 4, "F32": 4}.get(tensor["dtype"], 2) == 0


def test_config_has_the_settings_of_each_layer(tmp_path: Path) -> None:
    recipe = Recipe(
        [Rule("b.*", bit_width=8, group_size=32), Rule("c.*", zero_point="symmetric")],
        default={"bit_width": 4, "group_size": 64},
    )
    arrays = [weights(i, 2, 128) for i in range(3)]
    result = quantized(*arrays, recipe=recipe, scale_dtype="float16")
    source = {"model_type": "llama", "été": 1.5}
    write_mlx(result, tmp_path / "out", config=source)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    quantization = {
        **{"group_size": 64, "bits": 4, "mode": "affine"},
        "b": {"group_size": 32, "bits": 8, "mode": "affine"},
    }
    assert config == {**source, "quantization": quantization, "quantization_config": quantization}


def test_streams_and_other_producers_give_the_same_file(tmp_path: Path) -> None:
    table = plain(["a.weight", "b.weight"], [weights(1, 5, 128), weights(2, 3, 64)])
    options: dict[str, Any] = {"group_size": 64, "scale_dtype": "float16"}
    result = quantize_batch_arrow(table, **options)
    write_mlx(result, tmp_path / "table")
    expected = files(tmp_path / "table")
    pq.write_table(result, tmp_path / "result.parquet")
    import polars as pl

    sources = {
        "stream": quantize_stream(table.to_reader(max_chunksize=1), **options),
        "capsule": OnlyStream(result),
        "parquet": pq.read_table(tmp_path / "result.parquet"),
        "polars": pl.from_arrow(result),
        "slice": pa.concat_tables([result, result]).slice(1, 2).sort_by("layer_name"),
    }
    for name, source in sources.items():
        write_mlx(source, tmp_path / name)
        assert files(tmp_path / name) == expected, name


@pytest.mark.parametrize("kind", ["qwen3_5_moe_text", "bert", "another"])
def test_models_that_mlx_lm_does_not_know_are_told(tmp_path: Path, kind: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    save_file({"a.weight": np.ones((64, 64), np.float32)}, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.warns(UserWarning, match=r"mlx-lm 0\.32\.2 does not load") as caught:
        plan(model, tmp_path / "out", to="mlx")
    (warning,) = caught
    told = f"'{model}/config.json' has model_type '{kind}', which mlx-lm 0.32.2 does not load"
    assert str(warning.message).startswith(told)


@pytest.mark.parametrize("kind", ["llama", "mistral", "kimi_k2", "qwen3_5_moe", "lfm2-vl"])
def test_models_that_mlx_lm_knows_are_not(tmp_path: Path, kind: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    save_file({"a.weight": np.ones((64, 64), np.float32)}, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps({"model_type": kind}))
    assert plan(model, tmp_path / "out", to="mlx").layers
