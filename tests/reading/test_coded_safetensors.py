"""Safetensors that have codes, of every kind that is decoded; ml_dtypes says what floats mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from quantized_models import E2M1, assert_same, folder, pairs, read, save

import pyarrowquant

RNG = np.random.default_rng(0)
UP = "model.layers.0.up.weight"
E4M3, E5M2, E8M0 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e8m0fnu


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def fp8(*shape: int, dtype: Any = E4M3) -> np.ndarray:
    return random(*shape).astype(dtype)


def blocks(scales: np.ndarray, shape: tuple[int, ...], rows: int, columns: int) -> np.ndarray:
    """Give each weight the scale of its block."""
    spread = np.repeat(np.repeat(scales, rows, axis=-2), columns, axis=-1)
    return spread[..., : shape[-2], : shape[-1]]


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("shape", [(2, 128), (256, 256), (512, 1024), (257, 1023)])
def test_every_fp8_number(tmp_path: Path, dtype: Any, shape: tuple[int, int]) -> None:
    numbers = np.arange(np.prod(shape), dtype=np.uint64)
    codes = (numbers // 256 + numbers).astype(np.uint8).view(dtype).reshape(shape)  # and all pairs
    found = read(save(tmp_path / "m.safetensors", {UP: codes}))
    np.testing.assert_array_equal(found[UP], codes.astype(np.float32))


@pytest.mark.parametrize("scale", ["weight_scale_inv", "weight_scale", "scale_weight"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (200, 1), (200,), (2, 3), (200, 3)])
def test_fp8_with_scales(tmp_path: Path, scale: str, shape: tuple[int, ...]) -> None:
    codes, scales = fp8(200, 300), np.abs(random(*shape)).reshape(shape)
    name = UP.removesuffix("weight") + scale
    found = read(save(tmp_path / "m.safetensors", {UP: codes, name: scales, "norm": random(4)}))
    assert found.keys() == {UP, "norm"}
    rows = {0: 200, 1: 200, 2: 128, 200: 1}[shape[0] if shape else 0]
    columns = 128 if shape[1:] == (3,) else 300
    matrix = scales.reshape(-1, shape[1] if len(shape) > 1 else 1)
    assert_same(found[UP], codes.astype(np.float32) * blocks(matrix, (200, 300), rows, columns))


def test_blocks_of_another_size_are_what_config_json_says(tmp_path: Path) -> None:
    codes, scales = fp8(100, 100), np.abs(random(4, 4))
    said = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    model = folder(tmp_path / "m", {UP: codes, f"{UP}_scale_inv": scales}, quantization_config=said)
    assert_same(read(model)[UP], codes.astype(np.float32) * blocks(scales, (100, 100), 32, 32))


@pytest.mark.parametrize("groups", [1, "x", [{"weights": 1}], {"a": 1}, {"a": {"weights": [4]}}])
def test_odd_groups_of_config_json_say_nothing(tmp_path: Path, groups: object) -> None:
    tensors = {"a.weight": fp8(4, 16), "a.weight_scale": np.full((4, 1), 0.5, np.float32)}
    said = {"quant_method": "compressed-tensors", "config_groups": groups}
    model = folder(tmp_path / "model", tensors, quantization_config=said)
    assert read(model)["a.weight"].shape == (4, 16)


def test_a_stack_of_experts_has_blocks_in_each(tmp_path: Path) -> None:
    codes, scales = fp8(3, 200, 130), np.abs(random(3, 2, 2))
    name = "model.layers.0.experts.up"
    found = read(save(tmp_path / "m.safetensors", {name: codes, f"{name}_scale_inv": scales}))
    expected = codes.astype(np.float32) * blocks(scales, (3, 200, 130), 128, 128)
    assert_same(found[name], expected)


def test_scales_in_another_shard(tmp_path: Path) -> None:
    codes, scales = fp8(8, 16), np.abs(random(8, 1)).astype(ml_dtypes.bfloat16)
    save(tmp_path / "model-00001-of-00002.safetensors", {UP: codes})
    save(tmp_path / "model-00002-of-00002.safetensors", {f"{UP}_scale": scales})
    assert_same(read(tmp_path)[UP], codes.astype(np.float32) * scales.astype(np.float32))


def test_mxfp8(tmp_path: Path) -> None:
    codes, exponents = fp8(8, 96), RNG.integers(100, 140, (8, 3)).astype(np.uint8)
    found = read(save(tmp_path / "m.safetensors", {UP: codes, f"{UP}_scale": exponents}))
    scales = exponents.view(E8M0).astype(np.float32)
    assert_same(found[UP], codes.astype(np.float32) * blocks(scales, (8, 96), 1, 32))


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("shape", [(1,), (24, 1), (24, 2)])
def test_int8(tmp_path: Path, zero_points: bool, shape: tuple[int, ...]) -> None:
    codes = RNG.integers(-128, 128, (24, 64)).astype(np.int8)
    scales, zeros = np.abs(random(*shape)), RNG.integers(-9, 9, shape).astype(np.int8)
    tensors = {UP: codes, f"{UP}_scale": scales}
    if zero_points:
        tensors[f"{UP}_zero_point"] = zeros
    strategy = {(1,): "tensor", (24, 1): "channel", (24, 2): "group"}[shape]
    group = {"weights": {"num_bits": 8, "type": "int", "strategy": strategy, "group_size": 32}}
    said = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}
    model = folder(tmp_path / "m", tensors, quantization_config=said)
    s, z = (
        np.repeat(one.reshape(-1, shape[-1]), 64 // shape[-1], axis=1) for one in (scales, zeros)
    )
    expected = (codes.astype(np.float32) - (z.astype(np.float32) if zero_points else 0)) * s
    found = read(model)
    assert found.keys() == {UP}
    assert_same(found[UP], expected)


def test_nvfp4(tmp_path: Path) -> None:
    codes = RNG.integers(0, 16, (8, 64)).astype(np.uint8)
    scales, divisor = np.abs(random(8, 4) * 100).astype(E4M3), np.float32([1234.5])
    tensors = {
        f"{UP}_packed": pairs(codes),
        f"{UP}_scale": scales,
        f"{UP}_global_scale": divisor,
        "model.layers.0.up.input_global_scale": divisor,
    }
    found = read(save(tmp_path / "m.safetensors", tensors))
    assert found.keys() == {UP}
    assert_same(found[UP], E2M1[codes] * np.repeat(scales.astype(np.float32) / divisor, 16, axis=1))


def test_nvfp4_of_modelopt(tmp_path: Path) -> None:
    codes = RNG.integers(0, 16, (8, 64)).astype(np.uint8)
    scales, factor = np.abs(random(8, 4)).astype(E4M3), np.float32(0.0012)
    tensors = {UP: pairs(codes), f"{UP}_scale": scales, f"{UP}_scale_2": factor}
    found = read(save(tmp_path / "m.safetensors", tensors))
    assert found.keys() == {UP}
    assert_same(found[UP], E2M1[codes] * np.repeat(scales.astype(np.float32) * factor, 16, axis=1))


def test_mxfp4(tmp_path: Path) -> None:
    codes = RNG.integers(0, 16, (8, 64)).astype(np.uint8)
    exponents = RNG.integers(0, 255, (8, 2)).astype(np.uint8)
    tensors = {f"{UP}_packed": pairs(codes), f"{UP}_scale": exponents}
    found = read(save(tmp_path / "m.safetensors", tensors))
    scales = np.repeat(exponents.view(E8M0).astype(np.float32), 32, axis=1)
    with np.errstate(over="ignore"):
        assert_same(found[UP], E2M1[codes] * scales)


def test_gpt_oss(tmp_path: Path) -> None:
    codes = RNG.integers(0, 16, (2, 6, 3, 32)).astype(np.uint8)
    exponents = RNG.integers(110, 130, (2, 6, 3)).astype(np.uint8)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    bias = random(2, 6).astype(ml_dtypes.bfloat16)
    tensors = {
        f"{name}_blocks": pairs(codes),
        f"{name}_scales": exponents,
        f"{name}_bias": bias,
    }
    found = read(save(tmp_path / "m.safetensors", tensors))
    assert found.keys() == {name, f"{name}_bias"}
    scales = exponents.view(E8M0).astype(np.float32)[..., None]
    assert_same(found[name], (E2M1[codes] * scales).reshape(2, 6, 96))


def test_columns_in_groups_of_any_order(tmp_path: Path) -> None:
    codes = RNG.integers(0, 16, (4, 64)).astype(np.uint8)
    scales, order = np.abs(random(4, 2)), RNG.permutation(np.repeat([0, 1], 32)).astype(np.int32)
    tensors = {
        f"{UP}_packed": pairs(codes).view(np.int32),
        f"{UP}_scale": scales,
        f"{UP}_shape": np.int64([4, 64]),
        f"{UP}_g_idx": order,
    }
    found = read(save(tmp_path / "m.safetensors", tensors))
    assert_same(found[UP], (codes.astype(np.float32) - 8) * scales[:, order])


@pytest.mark.parametrize("missing", ["_scale", "_shape"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    tensors = {
        f"{UP}_packed": np.zeros((4, 8), np.int32),
        f"{UP}_scale": np.ones((4, 2), np.float32),
        f"{UP}_shape": np.int64([4, 64]),
    }
    del tensors[f"{UP}{missing}"]
    with pytest.raises(ValueError, match=f"'{UP}{missing}' is missing"):
        pyarrowquant.read_weights(save(tmp_path / "m.safetensors", tensors))


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"a.qweight": np.zeros((8, 8), np.int32)}, "GPTQ or AWQ"),
        (
            {"a.weight": np.zeros((64, 1), np.uint8), "a.weight.absmax": np.ones(2, np.float32)},
            "bitsandbytes",
        ),
        (
            {"a.weight": np.zeros((8, 8), np.int8), "a.weight_scale_inv": np.ones(1, np.float32)},
            "I8 with 'a.weight_scale_inv' is not decoded",
        ),
        ({"a.weight": np.zeros((8, 8), np.uint32)}, "U32 without scales of a known name"),
        (
            {UP: fp8(8, 8), f"{UP}_scale": np.ones((3, 8), np.float32)},
            f"'{UP}_scale' has dtype F32 and shape [3, 8]",
        ),
        (
            {"a.weight": np.zeros((8, 8), np.uint32), "a.scales": np.ones((8, 2), np.float16)},
            "no config.json beside it says the bits",
        ),
    ],
)
def test_what_cannot_be_decoded_says_why(
    tmp_path: Path, tensors: dict[str, np.ndarray], problem: str
) -> None:
    with pytest.raises(ValueError, match="is quantized already") as caught:
        pyarrowquant.read_weights(save(tmp_path / "m.safetensors", tensors))
    assert problem in str(caught.value)
