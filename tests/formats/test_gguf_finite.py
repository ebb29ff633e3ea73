"""NaN and Inf in quantized tensors of a GGUF model that stay as they are."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from pyarrowquant import Recipe, Rule, convert

TYPES = gguf.GGMLQuantizationType
KEPT, OTHER = "blk.0.kept.weight", "blk.0.up.weight"
RULES = Recipe((Rule(KEPT, skip=True),))
NAN = bytes([0xFF, 0x7F])  # of float16; the first of them is NaN as E8M0, the second as E4M3


def decodes(type_: TYPES) -> bool:
    try:
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[type_][1]), np.uint8), type_)
    except (NotImplementedError, KeyError):
        return False
    return True


CODES = [type_ for type_, (block, _) in gguf.GGML_QUANT_SIZES.items() if block > 1]
DECODED = [type_.name for type_ in CODES if decodes(type_)]


def blocks(type_: TYPES) -> np.ndarray:
    """Return blocks of bytes that are no NaN or Inf, wherever their scales are."""
    size = gguf.GGML_QUANT_SIZES[type_][1]
    return np.random.default_rng(5).integers(0, 0x70, (6, size)).astype(np.uint8)


def are_finite(data: np.ndarray, type_: TYPES) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(gguf.quants.dequantize(data, type_)).all())


def saved(path: Path, data: np.ndarray, type_: TYPES) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor(KEPT, data, raw_dtype=type_)
    writer.add_tensor(OTHER, np.ones((64, 256), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def scales(type_: TYPES) -> list[int]:
    """Find by gguf where blocks have numbers that may be NaN."""
    found = []
    for offset in range(gguf.GGML_QUANT_SIZES[type_][1] - 1):
        data = blocks(type_)
        data[3, offset : offset + 2] = list(NAN)
        if not are_finite(data, type_):
            found.append(offset)
    return found


@pytest.mark.parametrize("name", DECODED)
def test_scales_of_every_type(tmp_path: Path, name: str) -> None:
    type_ = TYPES[name]
    weights = gguf.GGML_QUANT_SIZES[type_][0]
    for offset in scales(type_):
        data = blocks(type_)
        data[3:5, offset : offset + 2] = list(NAN)
        source = saved(tmp_path / "m.gguf", data, type_)
        said = rf"m\.gguf': '{KEPT}' has NaN or Inf at index {3 * weights}\. Take weights that"
        with pytest.raises(ValueError, match=said):
            convert(source, tmp_path / "x.gguf", bit_width=8, recipe=RULES)
        assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("name", DECODED)
def test_codes_may_be_any(tmp_path: Path, name: str) -> None:
    type_ = TYPES[name]
    data = blocks(type_)
    rest = np.ones(data.shape[1], bool)
    for offset in scales(type_):
        rest[offset : offset + 2] = False
    data[:, rest] = np.random.default_rng(6).integers(0, 256, (6, rest.sum())).astype(np.uint8)
    if name == "IQ1_M":  # whose scale is a part of other numbers
        data[:, -8:] &= 0x7F
    assert are_finite(data, type_)
    convert(saved(tmp_path / "m.gguf", data, type_), tmp_path / "x.gguf", bit_width=8, recipe=RULES)
    kept = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}[KEPT]
    assert kept.data.tobytes() == data.tobytes()


def test_a_scale_in_four_parts(tmp_path: Path) -> None:
    data = blocks(TYPES.IQ1_M)
    data[2, -8:].view("<u2")[:] |= np.uint16([0, 0, 0xC000, 0x7000])  # the upper bits: 0x7C..
    assert not are_finite(data, TYPES.IQ1_M)
    source = saved(tmp_path / "m.gguf", data, TYPES.IQ1_M)
    with pytest.raises(ValueError, match="NaN or Inf at index 512"):
        convert(source, tmp_path / "x.gguf", bit_width=8, recipe=RULES)
