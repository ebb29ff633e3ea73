"""Tensors of all types of ggml that the package gguf decodes."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from quantized_models import assert_same, read

import pyarrowquant

TYPES = gguf.GGMLQuantizationType
DECODED = [
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0", "IQ2_XXS", "IQ3_S", "IQ1_M"),
]


def saved(path: Path, type_name: str, shape: tuple[int, ...], **more: np.ndarray) -> np.ndarray:
    """Write a tensor of random blocks; returns its bytes, a row for each of its rows."""
    type_ = TYPES[type_name]
    block, block_bytes = gguf.GGML_QUANT_SIZES[type_]
    width = shape[-1] // block * block_bytes
    data = np.random.default_rng(0).integers(0, 256, (*shape[:-1], width)).astype(np.uint8)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.up.weight", data, raw_dtype=type_)
    for name, array in more.items():
        writer.add_tensor(name.replace("_", "."), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return data


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of gguf, for scales of any bytes
@pytest.mark.parametrize("type_name", DECODED)
@pytest.mark.parametrize("shape", [(5, 512), (3, 2, 256)])
def test_types(tmp_path: Path, type_name: str, shape: tuple[int, ...]) -> None:
    data = saved(tmp_path / "m.gguf", type_name, shape, norm=np.ones(4, np.float32))
    found = read(tmp_path / "m.gguf")
    assert found.keys() == {"blk.0.up.weight", "norm"}
    assert_same(found["blk.0.up.weight"], gguf.quants.dequantize(data, TYPES[type_name]))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nvfp4_has_a_scale_beside(tmp_path: Path) -> None:
    scales = np.float32([0.5, 0.25, 2])
    data = saved(tmp_path / "m.gguf", "NVFP4", (3, 2, 256), blk_0_up_scale=scales)
    found = read(tmp_path / "m.gguf")
    assert found.keys() == {"blk.0.up.weight"}
    expected = gguf.quants.dequantize(data, TYPES.NVFP4) * scales[:, None, None]
    assert_same(found["blk.0.up.weight"], expected)


def test_a_type_that_is_not_decoded_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "m.gguf", "Q8_K", (2, 256))
    with pytest.raises(ValueError, match="the installed gguf does not decode Q8_K"):
        pyarrowquant.read_weights(tmp_path / "m.gguf")
