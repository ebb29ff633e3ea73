"""Encodings in folders for MLX, decoded and multiplied by MLX itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from exports import decoded, quantized, weights
from safetensors.numpy import load_file, save_file

from pyarrowquant import Recipe, Rule, convert, plan, read_weights
from pyarrowquant.formats import write_mlx

MODES = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}


def load(folder: Path) -> tuple[dict[str, mx.array], dict[str, Any]]:
    config = json.loads((folder / "config.json").read_text())
    return mx.load(str(folder / "model.safetensors")), config


def dequantized(tensors: dict[str, mx.array], module: str, mode: str) -> np.ndarray:
    codes, scales = tensors[f"{module}.weight"], tensors[f"{module}.scales"]
    return np.array(mx.dequantize(codes, scales, mode=mode, dtype=mx.float32))


def spread(seed: int, rows: int, columns: int) -> np.ndarray:
    """Weights whose groups have magnitudes of 2^-11 to 2^9, and some that are all 0."""
    groups = np.arange(rows * columns // 16)
    found = weights(seed, len(groups), 16) * np.exp2(groups % 21 - 11)[:, None]
    found[groups % 50 == 7] = 0
    return found.reshape(rows, columns).astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.filterwarnings("ignore:.*groups? whose scale:UserWarning")
def test_mlx_decodes_the_same_values(tmp_path: Path, mode: str, method: str) -> None:
    layers = {"a.weight": spread(1, 6, 960), "b.weight": weights(2, 8, 64) / 50}
    save_file(layers, tmp_path / "m.safetensors")
    convert(tmp_path / "m.safetensors", tmp_path / "out", to="mlx", encoding=mode, method=method)
    tensors, config = load(tmp_path / "out")
    assert tensors.keys() == {
        f"{module}.{part}" for module in "ab" for part in ("weight", "scales")
    }
    bits, group = MODES[mode]
    said = {"group_size": group, "bits": bits, "mode": mode}
    assert config == {"quantization": said, "quantization_config": said}
    table = read_weights(tmp_path / "out").read_all()
    read = dict(zip(table["layer_name"].to_pylist(), table["weights"].to_pylist(), strict=True))
    for name, array in layers.items():
        found = dequantized(tensors, name[0], mode)
        np.testing.assert_array_equal(found.ravel(), np.frombuffer(read[name], np.float32))
        own = mx.quantize(mx.array(array), mode=mode)
        of_mlx = np.array(mx.dequantize(*own, mode=mode, dtype=mx.float32))
        assert np.linalg.norm(found - array) <= 1.11 * np.linalg.norm(of_mlx - array)
        x = weights(3, 4, array.shape[1])
        packed = tensors[name], tensors[f"{name[0]}.scales"]
        product = np.array(mx.quantized_matmul(mx.array(x), *packed, mode=mode))
        exact = x.astype(np.float64) @ found.T.astype(np.float64)
        assert np.abs(product - exact).max() <= 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8"])
def test_tables_decode_to_the_same_values(tmp_path: Path, mode: str) -> None:
    result = quantized(spread(1, 6, 960), encoding=mode)
    write_mlx(result, tmp_path / "out")
    found = dequantized(load(tmp_path / "out")[0], "a", mode)
    np.testing.assert_array_equal(found, decoded(result)["a.weight"])


def test_scales_of_layers_have_no_place(tmp_path: Path) -> None:
    small = quantized(weights(1, 2, 64) / 50, encoding="nvfp4")
    with pytest.raises(ValueError, match=r"'a.weight': its scales are products .* to=\"mlx\""):
        write_mlx(small, tmp_path / "out")
    # All of these are E4M3, whatever the scale of the layer.
    large = quantized(np.float32([[6, 3, 0, -6] * 8]) * 64, encoding="nvfp4")
    write_mlx(large, tmp_path / "out")
    found = dequantized(load(tmp_path / "out")[0], "a", "nvfp4")
    np.testing.assert_array_equal(found, decoded(large)["a.weight"])


def test_layers_that_mlx_does_not_take(tmp_path: Path) -> None:
    layers = {"a.weight": weights(1, 4, 64), "b.weight": weights(1, 3, 48)}
    save_file(layers, tmp_path / "m.safetensors")
    with pytest.warns(UserWarning, match=r"Kept, as the format does not take .*: b\.weight"):
        convert(tmp_path / "m.safetensors", tmp_path / "out", to="mlx", encoding="nvfp4")
    np.testing.assert_array_equal(
        np.array(load(tmp_path / "out")[0]["b.weight"]), layers["b.weight"]
    )
    result = quantized(weights(1, 3, 48), encoding="nvfp4")
    with pytest.raises(ValueError, match=r"'a\.weight': 48 columns are no multiple of 32"):
        write_mlx(result, tmp_path / "x")
    with pytest.raises(ValueError, match="encoding 'nf4' must be one of 'int', 'mxfp4'"):
        write_mlx(quantized(weights(1, 2, 64), encoding="nf4"), tmp_path / "x")
    save_file({"a.weight": weights(1, 2, 64) * 3000}, tmp_path / "large.safetensors")
    with pytest.raises(ValueError, match=r"Layer 'a.weight': the scale .* is beyond what encoding"):
        convert(tmp_path / "large.safetensors", tmp_path / "x", to="mlx", encoding="nvfp4")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_modes_mix(tmp_path: Path, dtype: str) -> None:
    """Scales of evenly spaced codes have the model's dtype, beside whatever encodings."""
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    layers = {f"{name}.weight": weights(i, 4, 64).astype(kind) for i, name in enumerate("abcd")}
    save_file(layers, tmp_path / "m.safetensors")
    recipe = Recipe(
        [
            Rule("a.*", encoding="nvfp4"),
            Rule("b.*", encoding="int", bit_width=8, group_size=32, scale_dtype=dtype),
        ]
    )
    convert(tmp_path / "m.safetensors", tmp_path / "out", to="mlx", recipe=recipe, encoding="mxfp4")
    tensors, config = load(tmp_path / "out")
    assert config["quantization"] == {
        **{"group_size": 32, "bits": 4, "mode": "mxfp4"},
        "a": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
        "b": {"group_size": 32, "bits": 8, "mode": "affine"},
    }
    assert str(tensors["b.scales"].dtype) == f"mlx.core.{dtype}"
    for name, array in layers.items():
        packed = tensors[name], tensors[f"{name[0]}.scales"], tensors.get(f"{name[0]}.biases")
        said = config["quantization"].get(name[0], config["quantization"])
        found = mx.dequantize(*packed, said["group_size"], said["bits"], said["mode"])
        found = np.array(found.astype(mx.float32))
        wanted = array.astype(np.float32)
        assert np.linalg.norm(found - wanted) <= 0.15 * np.linalg.norm(wanted)


def test_sizes_are_those_of_the_file(tmp_path: Path) -> None:
    save_file({"a.weight": weights(1, 64, 1024)}, tmp_path / "m.safetensors")
    for mode, bits in {"mxfp4": 4.25, "mxfp8": 8.25, "nvfp4": 4.5}.items():
        done = convert(tmp_path / "m.safetensors", tmp_path / mode, to="mlx", encoding=mode)
        stored = load_file(tmp_path / mode / "model.safetensors")
        assert 8 * sum(array.nbytes for array in stored.values()) / (64 * 1024) == bits
        assert done.bits_per_weight == bits
    planned = plan(tmp_path / "m.safetensors", tmp_path / "x", to="mlx", encoding="nvfp4")
    assert planned.layers[0].settings is not None
