"""A config.json that says other codes than the tensors are: an error before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kinds_of_codes import (
    FIRST,
    FP8,
    MLX,
    SECOND,
    Tensors,
    float_quantized,
    fp8,
    groups,
    int8,
    mlx,
    model,
    nf4,
    nvfp4,
    packed,
)
from quantized_models import folder, read

import pyarrowquant

INT4: dict[str, Any] = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
INT8: dict[str, Any] = {"num_bits": 8, "type": "int", "strategy": "channel"}
FLOAT8: dict[str, Any] = {"num_bits": 8, "type": "float", "strategy": "tensor"}
FLOAT4: dict[str, Any] = {"num_bits": 4, "type": "float", "strategy": "tensor_group"}
PACKED, ZEROS = f"{FIRST}_packed", f"{FIRST}_zero_point"
NF4 = "bnb_4bit_quant_type"


def said(format_: str | None = None, targets: Any = None, **weights: Any) -> dict[str, Any]:
    """What config.json says, with the format of all and the targets of the group."""
    config = groups(**weights)
    found = config["quantization_config"]
    if format_ is not None:
        found["format"] = format_
    if targets is not None:
        found["config_groups"]["group_0"]["targets"] = targets
    return config


def bitsandbytes(**more: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": "bitsandbytes", **more}}


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "tensor", "found", "told"),
    [
        (packed, said(**INT4), said(**INT4 | {"num_bits": 8}), PACKED, "4 bits", "num_bits 8"),
        (
            *(packed, said(**INT4), said(**INT4 | {"group_size": 16})),
            *(f"{FIRST}_scale", "[8, 1]", "group_size 16: [8, 2]"),
        ),
        (
            *(packed, said(**INT4, symmetric=False), said(**INT4, symmetric=True)),
            *(ZEROS, "is there", "symmetric true"),
        ),
        (
            *(packed, said("pack-quantized", **INT4), said("int-quantized", **INT4)),
            *(PACKED, "4-bit compressed-tensors", "int-quantized"),
        ),
        (packed, said(**INT4), said(**INT4 | {"type": "float"}), PACKED, "4 bits", "type float"),
        (
            *(packed, said(**INT4), {"quantization_config": {"quant_method": "fp8"}}),
            *(PACKED, "4 bits", "quant_method fp8"),
        ),
        (int8, said(**INT8), said(**INT8 | {"num_bits": 16}), FIRST, "8 bits", "num_bits 16"),
        (int8, said(**INT8), said(**INT8 | {"type": "float"}), FIRST, "8 bits", "type float"),
        (
            *(int8, said(**INT8), said(**INT8 | {"strategy": "tensor"})),
            *(f"{FIRST}_scale", "[8, 1]", "strategy tensor: [1, 1]"),
        ),
        (
            *(int8, said(**INT8, symmetric=False), said(**INT8, symmetric=True)),
            *(ZEROS, "is there", "symmetric true"),
        ),
        (
            *(float_quantized, said("float-quantized", **FLOAT8), said("pack-quantized", **FLOAT8)),
            *(FIRST, "F8_E4M3", "pack-quantized"),
        ),
        (
            *(float_quantized, said(**FLOAT8), said(**FLOAT8 | {"strategy": "channel"})),
            *(f"{FIRST}_scale", "[1, 1]", "a scale for each row: [8, 1]"),
        ),
        (
            float_quantized,
            said(**FLOAT8 | {"strategy": "block", "block_structure": [128, 128]}),
            said(**FLOAT8 | {"strategy": "block", "block_structure": [4, 16]}),
            *(f"{FIRST}_scale", "[1, 1]", "block_structure [4, 16]: [2, 2]"),
        ),
        (
            fp8,
            FP8,
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [4, 32]}},
            *(f"{FIRST}_scale_inv", "[1, 1]", "weight_block_size [4, 32]: [2, 1]"),
        ),
        (
            *(nvfp4, said(**FLOAT4, group_size=16), said(**FLOAT4, group_size=32)),
            *(f"{FIRST}_scale", "[8, 2]", "group_size 32: [8, 1]"),
        ),
        (
            *(mlx, MLX, {"quantization": {"bits": 8, "group_size": 32}}),
            *("model.layers.0.up.scales", "[8, 1]", "bits 8 and group_size 32"),
        ),
        (
            *(mlx, MLX, {"quantization": {"bits": 4, "group_size": 64}}),
            *(FIRST, "[8, 4]", "bits 4 and group_size 64"),
        ),
        (
            *(mlx, MLX, {"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}),
            *("model.layers.0.up.scales", "F16", "mode mxfp4"),
        ),
        (mlx, MLX, {"quantization": {"bits": 7, "group_size": 32}}, FIRST, "up", "bits 7"),
        (
            *(nf4, bitsandbytes(**{NF4: "nf4"}), bitsandbytes(**{NF4: "fp4"})),
            *(FIRST, "NF4", f"{NF4} 'fp4'"),
        ),
        (
            nf4,
            bitsandbytes(bnb_4bit_use_double_quant=False),
            bitsandbytes(bnb_4bit_use_double_quant=True),
            *(f"{FIRST}.absmax", "F32", "bnb_4bit_use_double_quant true"),
        ),
        (
            *(nf4, bitsandbytes(load_in_4bit=True), bitsandbytes(load_in_8bit=True)),
            *(FIRST, "4 bits", "load_in_8bit true"),
        ),
        (nf4, bitsandbytes(), said(**INT4), FIRST, "NF4", "quant_method compressed-tensors"),
    ],
)
def test_both_values_are_named(
    tmp_path: Path,
    kind: Callable[[str], Tensors],
    right: dict[str, Any],
    wrong: dict[str, Any],
    tensor: str,
    found: str,
    told: str,
) -> None:
    assert len(read(model(tmp_path / "right", kind, right, {}))) == 2
    place = model(tmp_path / "wrong", kind, wrong, {})
    with pytest.raises(ValueError, match="Fetch the files again") as caught:
        pyarrowquant.read_weights(place)
    error = str(caught.value)
    assert error.startswith(f"{place}/model.safetensors: '{FIRST}")
    assert "(and so 1 more)" in error
    assert f"'{tensor}'" in error
    assert found in error
    assert told in error.partition("config.json says ")[2]
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "weights", "zeros"),
    [
        (packed, INT4, np.full((1, 1), -2004318072, np.int32)),  # eight codes of 8
        (int8, INT8, np.zeros((8, 1), np.int8)),
    ],
)
def test_zero_points_of_symmetric_codes_may_be_there(
    tmp_path: Path, kind: Callable[[str], Tensors], weights: dict[str, Any], zeros: np.ndarray
) -> None:
    changed = {f"{name}_zero_point": zeros for name in (FIRST, SECOND)}
    place = model(tmp_path / "m", kind, said(**weights, symmetric=True), changed)
    assert len(read(place)) == 2


def test_fewer_bits_may_be_stored_in_a_byte_each(tmp_path: Path) -> None:
    """As compressed-tensors has W4A8."""
    assert len(read(model(tmp_path / "m", int8, said(**INT8 | {"num_bits": 4}), {}))) == 2


def mxfp6(name: str) -> Tensors:
    return {
        f"{name}_packed": np.ones((8, 48), np.uint8),
        f"{name}_scale": np.full((8, 2), 127, np.uint8),
    }


def packed_7(name: str) -> Tensors:
    return {**packed(name), f"{name}_packed": np.ones((8, 7), np.int32)}


@pytest.mark.parametrize(
    ("kind", "weights", "problem"),
    [
        (mxfp6, {"num_bits": 6, "type": "float"}, "floats of 6 bits are not decoded"),
        (packed_7, INT4 | {"num_bits": 7}, "codes of 7 bits are not decoded"),
    ],
)
def test_kinds_that_are_not_decoded_are_no_contradiction(
    tmp_path: Path, kind: Callable[[str], Tensors], weights: dict[str, Any], problem: str
) -> None:
    place = model(tmp_path / "m", kind, said(**weights), {})
    with pytest.raises(ValueError, match="Give the model with float weights") as caught:
        pyarrowquant.read_weights(place)
    assert problem in str(caught.value)


def test_each_layer_is_as_one_of_several_groups_says(tmp_path: Path) -> None:
    config = said(**INT4)
    found = config["quantization_config"]["config_groups"]
    found["group_1"] = {"weights": INT8, "targets": ["Linear"]}
    changed = dict.fromkeys(packed(SECOND)) | int8(SECOND)
    assert len(read(model(tmp_path / "m", packed, config, changed))) == 2


@pytest.mark.parametrize("target", ["re:.*layers.1.*", SECOND.removesuffix(".weight")])
def test_a_group_that_names_a_layer_is_its_own(tmp_path: Path, target: str) -> None:
    config = said(**INT4)
    found = config["quantization_config"]["config_groups"]
    found["group_1"] = {"weights": INT4 | {"num_bits": 8}, "targets": [target]}
    place = model(tmp_path / "m", packed, config, {})
    with pytest.raises(ValueError, match=f"'{SECOND}_packed' has codes of 4 bits.* num_bits 8"):
        pyarrowquant.read_weights(place)


def test_a_state_that_has_other_blocks_than_scales(tmp_path: Path) -> None:
    state = b'{"quant_type": "nf4", "blocksize": 128, "shape": [8, 32], "dtype": "float16"}'
    name = f"{FIRST}.quant_state.bitsandbytes__nf4"
    place = model(tmp_path / "m", nf4, bitsandbytes(), {name: np.frombuffer(state, np.uint8)})
    with pytest.raises(ValueError, match="Fetch the files again") as caught:
        pyarrowquant.read_weights(place)
    assert f"'{FIRST}.absmax' has dtype F32 and shape [4], and must be 2 of F32" in str(
        caught.value
    )
    assert f"by '{name}', whose blocks have 128 weights" in str(caught.value)


def test_a_state_of_another_type_than_its_name(tmp_path: Path) -> None:
    state = b'{"quant_type": "fp4", "blocksize": 64, "shape": [8, 32], "dtype": "float16"}'
    name = f"{FIRST}.quant_state.bitsandbytes__nf4"
    place = model(tmp_path / "m", nf4, bitsandbytes(), {name: np.frombuffer(state, np.uint8)})
    with pytest.raises(ValueError, match=f"'{name}' has the quant_type 'fp4'"):
        pyarrowquant.read_weights(place)


def test_bits_and_groups_of_mlx_that_make_other_columns(tmp_path: Path) -> None:
    """Half the columns in groups half as long have as many scales."""
    name = "model.embed_tokens.weight"
    tensors = {
        name: np.ones((8, 16), np.uint32),
        "model.embed_tokens.scales": np.ones((8, 2), np.float16),
        "model.embed_tokens.biases": np.ones((8, 2), np.float16),
    }
    right = {"quantization": {"bits": 4, "group_size": 64}, "hidden_size": 128}
    assert read(folder(tmp_path / "right", tensors, **right))[name].shape == (8, 128)
    wrong = {"quantization": {"bits": 8, "group_size": 32}}
    place = folder(tmp_path / "wrong", tensors, **{**right, **wrong})
    with pytest.raises(ValueError, match="Fetch the files again") as caught:
        pyarrowquant.read_weights(place)
    told = f"'{name}' has 16 words a row, which are 64 codes of 8 bits, and config.json says"
    assert f"{told} hidden_size 128" in str(caught.value)
    other = {"word_embed_proj_dim": 64}  # as models say whose embeddings are narrower
    assert read(folder(tmp_path / "other", tensors, **{**right, **wrong, **other}))
