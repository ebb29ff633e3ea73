"""Codes of 4 bits of bitsandbytes, plain and with scales that are codes themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from quantized_models import assert_same, read, save

import pyarrowquant

UP = "model.layers.0.up.weight"
# As bitsandbytes has them.
NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3], np.float32) / 12
STATE = f"{UP}.quant_state.bitsandbytes__nf4"


def state(**said: Any) -> np.ndarray:
    text = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", **said})
    return np.frombuffer(text.encode(), np.uint8)


def model(
    shape: tuple[int, ...], block: int = 64, nested: int = 0, levels: np.ndarray = NF4
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tensors of a layer, and its weights: weight i is level * scale of its block of the whole."""
    rng = np.random.default_rng(0)
    count = int(np.prod(shape))
    blocks = -(-count // block)
    codes = rng.integers(0, 16, count + count % 2)
    tensors = {
        UP: (codes[::2] << 4 | codes[1::2]).astype(np.uint8)[:, None],
        f"{UP}.quant_map": levels,
    }
    said: dict[str, Any] = {"shape": shape, "blocksize": block}
    if nested:
        inner = rng.integers(0, 256, blocks).astype(np.uint8)
        table = rng.standard_normal(256, np.float32)
        outer = rng.random(-(-blocks // nested), np.float32)
        tensors |= {
            f"{UP}.absmax": inner,
            f"{UP}.nested_absmax": outer,
            f"{UP}.nested_quant_map": table,
        }
        said |= {"nested_blocksize": nested, "nested_dtype": "float32", "nested_offset": 0.1}
        products = [table[code] * outer[i // nested] for i, code in enumerate(inner)]
        scales = np.array(products, np.float32) + np.float32(0.1)
    else:
        scales = tensors[f"{UP}.absmax"] = rng.random(blocks, np.float32)
    tensors[STATE] = state(**said)
    weights = [levels[code] * scales[i // block] for i, code in enumerate(codes[:count])]
    return tensors, np.array(weights, np.float32).reshape(shape)


@pytest.mark.parametrize("nested", [0, 2, 256])
@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize("shape", [(4, 64), (3, 48), (5, 7), (1, 1), (129, 130), (2, 3, 64)])
def test_values(tmp_path: Path, shape: tuple[int, ...], block: int, nested: int) -> None:
    tensors, weights = model(shape, block, nested)
    found = read(save(tmp_path / "m.safetensors", {"norm": np.ones(4, np.float32), **tensors}))
    assert found.keys() == {UP, "norm"}
    assert_same(found[UP], weights)


def test_more_weights_than_are_decoded_at_a_time(tmp_path: Path) -> None:
    tensors, weights = model((1030, 1025), 64, 256)
    assert_same(read(save(tmp_path / "m.safetensors", tensors))[UP], weights)


def test_codes_that_are_stored_as_floats(tmp_path: Path) -> None:
    """As bnb_4bit_quant_storage has it."""
    tensors, weights = model((4, 64))
    tensors[UP] = tensors[UP].reshape(-1).view(np.float32)[:, None]
    assert_same(read(save(tmp_path / "m.safetensors", tensors))[UP], weights)


def test_fp4_goes_by_its_own_levels(tmp_path: Path) -> None:
    tensors, weights = model((4, 64), levels=FP4)
    del tensors[STATE]
    said = state(shape=[4, 64], blocksize=64, quant_type="fp4")
    tensors[STATE.replace("nf4", "fp4")] = said
    assert_same(read(save(tmp_path / "m.safetensors", tensors))[UP], weights)


def test_levels_that_were_rounded_are_those_of_nf4(tmp_path: Path) -> None:
    """bitsandbytes does not look at them where it decodes a whole layer."""
    tensors, weights = model((4, 64))
    tensors[f"{UP}.quant_map"] = NF4.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert_same(read(save(tmp_path / "m.safetensors", tensors))[UP], weights)


@pytest.mark.parametrize("nested", [0, 256])
@pytest.mark.parametrize(
    ("kind", "levels", "told"),
    [
        ("nf4", FP4, "has 0 at index 0, which for NF4 is -1"),
        ("fp4", NF4, "has -1 at index 0, which for FP4 is 0"),
    ],
)
def test_levels_of_another_kind(
    tmp_path: Path, nested: int, kind: str, levels: np.ndarray, told: str
) -> None:
    tensors, _ = model((4, 64), nested=nested, levels=levels)
    said = json.loads(tensors.pop(STATE).tobytes()) | {"quant_type": kind}
    tensors[f"{UP}.quant_state.bitsandbytes__{kind}"] = state(**said)
    path = save(tmp_path / "m.safetensors", tensors)
    with pytest.raises(ValueError, match=f"'{UP}.quant_map' {told}"):
        pyarrowquant.read_weights(path)


@pytest.mark.parametrize("shape", [(4, 64), (3, 50)])
def test_a_scale_of_0_is_that_of_codes_that_are_all_the_same(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """As bitsandbytes gives blocks of zeros the first of its codes."""
    tensors, weights = model(shape)
    tensors[f"{UP}.absmax"][1] = 0
    path = save(tmp_path / "wrong.safetensors", tensors)
    with pytest.raises(ValueError, match=f"'{UP}.absmax' has a scale of 0 at index 1 for codes"):
        pyarrowquant.read_weights(path)
    tensors[UP][32:64] = 0
    weights.reshape(-1)[64:128] = -0.0  # the level of code 0 is -1
    assert_same(read(save(tmp_path / "right.safetensors", tensors))[UP], weights)


def test_zeros_at_the_end_of_a_layer(tmp_path: Path) -> None:
    tensors, weights = model((3, 50))
    tensors[f"{UP}.absmax"][2] = 0
    tensors[UP][64:] = 0x77  # the code of the level 0
    weights.reshape(-1)[128:] = 0
    assert_same(read(save(tmp_path / "m.safetensors", tensors))[UP], weights)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({f"{UP}.quant_map": None}, f"'{UP}.quant_map' is missing"),
        ({f"{UP}.absmax": None}, f"'{UP}.absmax' is missing"),
        ({f"{UP}.nested_absmax": None}, f"'{UP}.nested_absmax' is missing"),
        ({f"{UP}.nested_quant_map": None}, f"'{UP}.nested_quant_map' is missing"),
        ({f"{UP}.quant_map": np.ones(15, np.float32)}, "shape [15]"),
        ({f"{UP}.absmax": np.ones(4, np.float32)}, f"'{UP}.absmax' has dtype F32"),
        ({f"{UP}.absmax": np.ones(5, np.uint8)}, "shape [5]"),
        ({UP: np.ones((129, 1), np.uint8)}, "shape [129, 1]"),
        ({STATE: state(shape=[4, 64], blocksize=0)}, "has blocks of 0"),
        ({STATE: state(shape=[4, 64], blocksize=10**30)}, "has blocks of 1000"),
        ({STATE: state(shape=[4, 64], blocksize=True)}, "has blocks of True"),
        ({STATE: state(shape=None)}, "has the shape None"),
        ({STATE: state(shape=[4, 0])}, "has the shape [4, 0]"),
        ({STATE: state(shape=[4, 64.0])}, "has the shape [4, 64.0]"),
        ({STATE: state(shape=[10**30, 64])}, "shape [128, 1]"),
        ({STATE: state(shape=[4, 64], nested_offset="x")}, "nested blocks of None"),
        (
            {STATE: state(shape=[4, 64], nested_offset=1e300, nested_blocksize=256)},
            "has the offset 1e+300",
        ),
        (
            {STATE: state(shape=[4, 64], nested_offset=0.1, nested_blocksize=0)},
            "has nested blocks of 0",
        ),
        ({STATE: np.frombuffer(b"[", np.uint8)}, "is not valid JSON"),
        ({STATE: np.zeros(4, np.float32)}, "has dtype F32 and 16 bytes"),
        ({STATE: np.zeros(1 << 17, np.uint8)}, "has dtype U8 and 131072 bytes"),
        ({STATE: None}, "without their quant_state"),
    ],
)
def test_what_does_not_fit_is_said(
    tmp_path: Path, changed: dict[str, np.ndarray | None], problem: str
) -> None:
    tensors, _ = model((4, 64), nested=256)
    left = {name: each for name, each in {**tensors, **changed}.items() if each is not None}
    with pytest.raises(ValueError, match="is quantized already") as caught:
        pyarrowquant.read_weights(save(tmp_path / "m.safetensors", left))
    assert problem in str(caught.value)


@pytest.mark.parametrize(("part", "what"), [("absmax", "scale"), ("quant_map", "number")])
def test_no_number(tmp_path: Path, part: str, what: str) -> None:
    tensors, _ = model((4, 64))
    tensors[f"{UP}.{part}"][:] = np.nan
    path = save(tmp_path / "m.safetensors", tensors)
    with pytest.raises(ValueError, match=f"'{UP}.{part}' has NaN at index 0, which is no {what}"):
        pyarrowquant.convert(path, tmp_path / "x.parquet")
