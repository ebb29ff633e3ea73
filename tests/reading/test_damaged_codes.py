"""Codes without what they are decoded with, or with scales that are none: errors before work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import ml_dtypes
import numpy as np
import pytest
from kinds_of_codes import (
    ASYMMETRIC,
    E4M3,
    EXPERTS,
    FIRST,
    FP8,
    MLX,
    SECOND,
    Tensors,
    comfy,
    float_quantized,
    fp8,
    gpt_oss,
    groups,
    int8,
    mlx,
    model,
    modelopt,
    nvfp4,
    packed,
)
from quantized_models import assert_same, folder, read, save

import pyarrowquant
from pyarrowquant.reading import scales as scale_checks
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.models import open_model
from pyarrowquant.reading.tensors import CodedTensor


@pytest.mark.parametrize(
    ("kind", "config", "missing"),
    [
        (fp8, FP8, f"{FIRST}_scale_inv"),
        (fp8, {}, f"{FIRST}_scale_inv"),  # as the other layer has one
        (comfy, {}, "model.layers.0.up.scale_weight"),
        (float_quantized, groups(num_bits=8, type="float"), f"{FIRST}_scale"),
        (int8, groups(num_bits=8, type="int"), f"{FIRST}_scale"),
        (int8, groups(num_bits=8, **ASYMMETRIC), f"{FIRST}_zero_point"),
        (nvfp4, groups(num_bits=4, type="float"), f"{FIRST}_global_scale"),
        (modelopt, {}, f"{FIRST}_scale_2"),
        (packed, groups(num_bits=4, **ASYMMETRIC), f"{FIRST}_zero_point"),
        (packed, groups(num_bits=4, **ASYMMETRIC), f"{FIRST}_scale"),
        (gpt_oss, {}, f"{EXPERTS.format(0)}_scales"),
        (mlx, MLX, "model.layers.0.up.scales"),
        (mlx, MLX, "model.layers.0.up.biases"),
    ],
)
def test_a_half_that_is_missing_is_named(
    tmp_path: Path, kind: Callable[[str], Tensors], config: dict[str, Any], missing: str
) -> None:
    whole = model(tmp_path / "whole", kind, config, {})
    assert len(read(whole)) == 2
    place = model(tmp_path / "model", kind, config, {missing: None})
    with pytest.raises(ValueError, match="Fetch the files again") as caught:
        pyarrowquant.read_weights(place)
    assert str(caught.value).startswith(f"{place}/model.safetensors: 'model.layers.0.")
    assert f": '{missing}' is missing. " in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "config", "name", "array", "found"),
    [
        (fp8, FP8, f"{FIRST}_scale_inv", np.float32([[-0.5]]), "-0.5 at index 0"),
        (fp8, FP8, f"{FIRST}_scale_inv", np.float32([[np.nan]]), "NaN at index 0"),
        (int8, {}, f"{FIRST}_scale", np.float32([[1]] * 7 + [[-np.inf]]), "-Inf at index 7"),
        (nvfp4, {}, f"{FIRST}_scale", np.float32([[1, -2]] * 8).astype(E4M3), "-2 at index 1"),
        (nvfp4, {}, f"{FIRST}_global_scale", np.float32([0]), "0 at index 0"),
        (modelopt, {}, f"{FIRST}_scale_2", np.float32([np.inf]), "Inf at index 0"),
        (packed, {}, f"{FIRST}_scale", np.float32([[np.nan]] * 8), "NaN at index 0"),
        (
            *(gpt_oss, {}, f"{EXPERTS.format(0)}_scales"),
            *(np.full((2, 6, 3), 255, np.uint8), "NaN at index 0"),
        ),
        (mlx, MLX, "model.layers.0.up.biases", np.float16([[np.inf]] * 8), "Inf at index 0"),
    ],
)
@pytest.mark.parametrize("first", [1 << 20, 0])
def test_scales_that_are_none_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[str], Tensors],
    config: dict[str, Any],
    name: str,
    array: np.ndarray,
    found: str,
    first: int,
) -> None:
    """Before any work, or where scales are too many for that, when their layer is decoded."""
    monkeypatch.setattr("pyarrowquant.reading.coded.READ_FIRST", first)
    place = model(tmp_path / "model", kind, config, {name: array})
    if first:
        with pytest.raises(ValueError, match="which is no") as caught:
            pyarrowquant.read_weights(place)
    else:
        reader = pyarrowquant.read_weights(place)
        with pytest.raises(ValueError, match="which is no") as caught:
            reader.read_all()
    assert str(caught.value).startswith(f"{place}/model.safetensors: ")
    assert f"'{name}' has {found}, which is no " in str(caught.value)


def test_scales_of_many_layers_are_looked_at_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small: a system reads far more around each, which takes long for many layers."""
    monkeypatch.setattr("pyarrowquant.reading.coded.READ_FIRST", 1 << 20)
    layers = 16
    tensors: dict[str, np.ndarray] = {}
    for number in range(layers):
        tensors[f"layers.{number:02}.weight"] = np.zeros((8, 32), ml_dtypes.float8_e4m3fn)
        tensors[f"layers.{number:02}.weight_scale"] = np.ones((1,), np.float32)
    tensors[f"layers.{layers - 1}.weight_scale"][0] = np.nan
    save(tmp_path / "model.safetensors", tensors)
    reader = pyarrowquant.read_weights(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"layers.{layers - 1}.weight_scale.*which is no scale"):
        reader.read_all()


def test_scales_of_one_matrix_are_looked_at_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrowquant.reading.coded.READ_FIRST", 0)
    changed = {f"{EXPERTS.format(0)}_scales": np.full((2, 6, 3), 255, np.uint8)}
    place = model(tmp_path / "model", gpt_oss, {}, changed)
    tensor = next(iter(open_model(locate(place, None)).tensors or ()))
    assert isinstance(tensor, CodedTensor)
    for read_one in (tensor.decode_matrix, tensor.read_mxfp4):
        assert read_one is not None
        with pytest.raises(ValueError, match="has NaN at index 0"):
            read_one(1)


def test_whole_numbers_with_other_scales_lack_none(tmp_path: Path) -> None:
    tensors: Tensors = {"norm": np.ones(8, np.float32)}
    for name in (FIRST, SECOND):
        tensors[name] = np.ones((8, 32), np.int8)
        tensors[name.replace("weight", "scale")] = np.ones((8, 1), np.float32)
    with pytest.raises(ValueError, match="of its 4 matrices 2 of I8") as caught:
        pyarrowquant.read_weights(save(tmp_path / "m.safetensors", tensors))
    assert "missing" not in str(caught.value)


def test_codes_that_are_missing_are_named(tmp_path: Path) -> None:
    """As in one shard of several."""
    tensors = {**float_quantized(FIRST), f"{SECOND}_scale": np.ones((8, 2), E4M3)}
    config = groups(num_bits=8, type="float")
    with pytest.raises(ValueError, match=f"'{SECOND}' is missing"):
        pyarrowquant.read_weights(folder(tmp_path / "model", tensors, **config))


def test_scales_of_a_store_are_looked_at_with_their_layers(tmp_path: Path) -> None:
    tensors = {**fp8(FIRST), f"{FIRST}_scale_inv": np.float32([[np.nan]])}
    data = save(tmp_path / "m.safetensors", tensors).read_bytes()
    store = fsspec.filesystem("memory")
    store.pipe("/damaged/m.safetensors", data)
    reader = pyarrowquant.read_weights("memory://damaged/m.safetensors")
    with pytest.raises(ValueError, match=f"'{FIRST}_scale_inv' has NaN at index 0"):
        reader.read_all()
    store.rm("/damaged", recursive=True)


def test_large_scales_are_looked_at_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale_checks, "_PIECE", 3)
    array = np.float32([[1]] * 7 + [[np.nan]])
    place = model(tmp_path / "model", int8, {}, {f"{FIRST}_scale": array})
    with pytest.raises(ValueError, match="has NaN at index 7"):
        pyarrowquant.read_weights(place)


@pytest.mark.parametrize(("kind", "config"), [(int8, {}), (packed, {}), (mlx, MLX)])
def test_scales_of_whole_numbers_may_be_negative(
    tmp_path: Path, kind: Callable[[str], Tensors], config: dict[str, Any]
) -> None:
    name = next(name for name in kind(FIRST) if name.endswith(("_scale", ".scales")))
    changed = {name: -kind(FIRST)[name]}
    assert len(read(model(tmp_path / "model", kind, config, changed))) == 2


@pytest.mark.parametrize(
    ("kind", "config", "name"),
    [
        (nvfp4, groups(num_bits=4, type="float"), f"{FIRST}_global_scale"),
        (modelopt, {}, f"{FIRST}_scale_2"),
        (mlx, MLX, "model.layers.0.up.biases"),
    ],
)
def test_scales_and_biases_are_floats(
    tmp_path: Path, kind: Callable[[str], Tensors], config: dict[str, Any], name: str
) -> None:
    place = model(tmp_path / "m", kind, config, {name: kind(FIRST)[name].astype(np.int64)})
    with pytest.raises(ValueError, match=f"'{name}' has dtype I64 and shape"):
        pyarrowquant.read_weights(place)


ZERO_SCALES = [
    (fp8, FP8, "weight_scale_inv"),
    (comfy, {}, "scale_weight"),
    (float_quantized, groups(num_bits=8, type="float"), "weight_scale"),
    (int8, groups(num_bits=8, type="int"), "weight_scale"),
    (packed, groups(num_bits=4, type="int"), "weight_scale"),
    (nvfp4, groups(num_bits=4, type="float"), "weight_scale"),
    (modelopt, {}, "weight_scale_2"),
]


@pytest.mark.parametrize(("kind", "config", "scale"), ZERO_SCALES)
def test_scales_of_zeros_may_be_zero(
    tmp_path: Path, kind: Callable[[str], Tensors], config: dict[str, Any], scale: str
) -> None:
    """Of zero-points, where there are some, which are 1."""
    changed, _ = zero_scales(kind, scale)
    codes, array = next(iter(kind(FIRST).items()))
    ones = 0x11111111 if kind is packed else 1
    changed[codes] = np.full_like(array, ones if kind in (int8, packed) else 0)
    if kind is packed:
        changed[f"{FIRST}_zero_point"] = np.full((1, 1), ones, np.int32)
    assert not read(model(tmp_path / "model", kind, config, changed))[FIRST].any()


@pytest.mark.parametrize(("kind", "config", "scale"), ZERO_SCALES)
def test_scales_of_other_codes_are_not_zero(
    tmp_path: Path, kind: Callable[[str], Tensors], config: dict[str, Any], scale: str
) -> None:
    changed, found = zero_scales(kind, scale)
    codes, array = next(iter(kind(FIRST).items()))
    changed[codes] = np.full_like(array, 2)
    place = model(tmp_path / "model", kind, config, changed)
    with pytest.raises(ValueError, match="Fetch the files again") as caught:
        pyarrowquant.read_weights(place)
    told = f"'{found}' has a scale of 0 for codes that are not 0, such as that of '{codes}' at"
    assert f"{told} index 0." in str(caught.value)
    assert str(caught.value).startswith(f"{place}/model.safetensors: ")


def zero_scales(kind: Callable[[str], Tensors], scale: str) -> tuple[Tensors, str]:
    """Return scales of 0, and their name."""
    name = FIRST.removesuffix("weight") + scale
    return {name: np.zeros_like(kind(FIRST)[name])}, name


def test_only_blocks_of_zeros_have_scales_of_zero(tmp_path: Path) -> None:
    """As layers have whose last rows are padding."""
    scales = np.float32([[0.5], [0]])
    codes = np.ones((200, 32), E4M3)
    codes[128:] = 0
    tensors = {FIRST: codes, f"{FIRST}_scale_inv": scales}
    found = read(folder(tmp_path / "good", tensors, **FP8))[FIRST]
    assert (found[:128] == 0.5).all()
    assert not found[128:].any()
    codes[150, 3] = -1
    place = folder(tmp_path / "bad", tensors, **FP8)
    with pytest.raises(ValueError, match=f"'{FIRST}' at index {150 * 32 + 3}"):
        pyarrowquant.read_weights(place)


@pytest.mark.parametrize("dtype", [np.float16, E4M3])
def test_small_weights_may_have_scales_of_zero(tmp_path: Path, dtype: Any) -> None:
    """Where their dtype has nothing smaller, but not the scales of all of them."""
    kind = nvfp4 if dtype is E4M3 else float_quantized
    config = groups(num_bits=4 if dtype is E4M3 else 8, type="float")
    shape = (8, 2) if dtype is E4M3 else (8, 1)
    scales = np.ones(shape, dtype)
    scales[3] = 0
    place = model(tmp_path / "m", kind, config, {f"{FIRST}_scale": scales})
    assert not read(place)[FIRST][3].any()
    scales[:] = 0
    place = model(tmp_path / "none", kind, config, {f"{FIRST}_scale": scales})
    with pytest.raises(ValueError, match=f"'{FIRST}_scale' has a scale of 0 for codes"):
        pyarrowquant.read_weights(place)


def test_fp8_of_which_nothing_says_that_it_has_scales_is_read(tmp_path: Path) -> None:
    """As a text encoder beside a model that has scales."""
    encoder = "encoder.block.0.wo.weight"
    codes = np.full((8, 32), 2, E4M3)
    found = read(save(tmp_path / "m.safetensors", {encoder: codes, **fp8(FIRST)}))
    assert_same(found[encoder], codes.astype(np.float32))


@pytest.mark.parametrize(
    ("codes", "scale"),
    [
        ("a.weight", "a.weights_scaling_factor"),  # of TensorRT-LLM
        ("a.weight._data", "a.weight._scale"),  # of quanto
        ("a._weight_qdata", "a._weight_scale"),  # of torchao
    ],
)
def test_scales_of_names_that_are_not_known(tmp_path: Path, codes: str, scale: str) -> None:
    """Without them weights would be other ones."""
    tensors = {codes: np.ones((64, 64), E4M3), scale: np.ones(1, np.float32)}
    with pytest.raises(ValueError, match=f"F8_E4M3 with '{scale}' is not decoded"):
        pyarrowquant.read_weights(folder(tmp_path / "m", tensors))


@pytest.mark.parametrize("other", ["a.input_scale", "a.k_scale", "b.scale", "a.scale_shift_table"])
def test_scales_of_others_are_none_of_weights(tmp_path: Path, other: str) -> None:
    tensors = {"a.weight": np.ones((64, 64), E4M3), other: np.ones(1, np.float32)}
    assert (read(folder(tmp_path / "m", tensors))["a.weight"] == 1).all()
