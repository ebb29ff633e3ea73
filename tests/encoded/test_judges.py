"""Others decode to the same numbers: gguf what its blocks hold, ml_dtypes the small floats."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
import reference
from gguf import GGMLQuantizationType, dequantize

from encoded.blocks import BLOCKS, alone, parts_of
from pyarrowquant import dequantize_batch_arrow, numpy_to_arrow_table, quantize_batch_arrow

# Some of their weights are so small that scales vanish, which is said.
pytestmark = pytest.mark.filterwarnings("ignore:.* rounds to 0")

RNG = np.random.default_rng(5)
WEIGHTS = {
    "normal": RNG.standard_normal((6, 1024), np.float32),
    "outliers": RNG.standard_t(2, (6, 1024)).astype(np.float32),
    "positive": abs(RNG.standard_normal((6, 1024), np.float32)) + 0.1,
    "negative": -abs(RNG.standard_normal((6, 1024), np.float32)) - 0.1,
    "zeros between": RNG.standard_normal((6, 1024), np.float32)
    * (np.arange(1024) // 32 % 3 != 0).astype(np.float32),
    "tiny": RNG.standard_normal((6, 1024), np.float32) * np.float32(3e-6),
}


def quantized(kind: str, name: str, method: str) -> tuple[pa.Table, np.ndarray]:
    table = numpy_to_arrow_table({"w": WEIGHTS[kind]})
    result = quantize_batch_arrow(table, encoding=name, method=method)
    return result, dequantize_batch_arrow(result)["weights"][0].values.to_numpy()


@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name", BLOCKS)
def test_super_blocks_in_gguf(name: str, kind: str, method: str) -> None:
    result, decoded = quantized(kind, name, method)
    columns, pack = BLOCKS[name]
    parts = parts_of(result, columns)
    theirs = dequantize(pack(parts), GGMLQuantizationType[name.upper()]).ravel()
    if name not in ("q2_k", "q4_k", "q5_k"):
        assert np.array_equal(decoded, theirs)
        return
    minimums = parts.dmin.astype(np.float32) * parts.minimum_factors
    minimums = np.repeat(minimums.ravel(), decoded.size // minimums.size)
    bound = 2.0**-22 * np.maximum(abs(theirs + minimums), minimums)
    assert (abs(decoded - theirs) <= bound).all()


@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name", ["iq4_nl", "mxfp4", "nvfp4"])
def test_blocks_in_gguf(name: str, kind: str, method: str) -> None:
    result, decoded = quantized(kind, name, method)
    theirs = dequantize(alone(result, name), GGMLQuantizationType[name.upper()]).ravel()
    if name == "nvfp4":  # whose scale of the whole tensor GGUF has elsewhere
        theirs = theirs * result["super_scales"][0].values.to_numpy()[0]
    assert np.array_equal(decoded, theirs)


DTYPES = {
    "mxfp4": ml_dtypes.float4_e2m1fn,
    "nvfp4": ml_dtypes.float4_e2m1fn,
    "mxfp8": ml_dtypes.float8_e4m3fn,
    "fp8": ml_dtypes.float8_e4m3fn,
}


@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name", DTYPES)
def test_small_floats(name: str, kind: str, method: str) -> None:
    result, decoded = quantized(kind, name, method)
    shape, bits = WEIGHTS[kind].shape, result["bit_width"][0].as_py()
    codes = reference.unpack(result["quantized_data"][0].as_py(), *shape, bits)
    values = codes.view(DTYPES[name]).astype(np.float32)
    assert np.isfinite(values).all()
    scales = result["scales"][0].values.to_numpy()
    size = result["group_size"][0].as_py()
    assert np.array_equal(values * reference.spread(scales, *shape, size), decoded.reshape(shape))
    if name.startswith("mx"):
        assert np.array_equal(scales.astype(ml_dtypes.float8_e8m0fnu).astype(np.float32), scales)
