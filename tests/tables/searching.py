"""Results of a search, compared with those of round-to-nearest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import reference
from methods import quantized
from reference import SCALE_DTYPES, Array, stored
from search_oracle import group_errors, group_rounding

from pyarrowquant import SkippedLayerWarning

GROUP_SIZES = (8, 32, 128, -1)

Layers = Mapping[str, Array]


def assert_never_worse(
    better: Layers, worse: Layers, layers: Layers, group_size: int, rounding: bool = False
) -> None:
    """No group's error is larger; or, with `rounding`, by no more than what float32 rounds."""
    assert better.keys() == worse.keys()
    for name in better:
        weights = layers[name]
        errors = group_errors(weights, better[name], group_size)
        bounds = group_errors(weights, worse[name], group_size)
        if rounding:
            bounds = bounds * (1 + 1e-5) + group_rounding(weights, group_size)
        assert (errors <= bounds).all(), name


def fitting(layers: Layers, **options: Any) -> pa.Table:
    """The result for those layers whose scales their type can hold: most of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*the scale ", SkippedLayerWarning)
        warnings.filterwarnings("ignore", ".* a scale that its type rounds to 0", UserWarning)
        result = quantized(layers, continue_on_error=True, **options)
    assert result.num_rows > 0.7 * len(layers)
    return result


def assert_form(result: pa.Table, layers: Layers, zero_point: str, scale_dtype: str) -> None:
    """Scales and zero-points are what their kinds promise, and the codes lie as always."""
    assert result["layer_name"].to_pylist() == list(layers)
    for row, (name, weights) in enumerate(layers.items()):
        quantity = stored(result, row)
        bit_width = result["bit_width"][row].as_py()
        group_size = result["group_size"][row].as_py()
        scales, zeros = quantity.scales, quantity.zero_points
        rows, columns = reference.matrix_shape(weights.shape)
        assert len(scales) == len(zeros) == rows * len(reference.group_starts(columns, group_size))
        assert np.isfinite(scales).all(), name
        assert np.isfinite(zeros).all(), name
        assert (scales != 0 if zero_point == "symmetric" else scales > 0).all(), name
        with np.errstate(over="ignore", under="ignore"):
            rounded = scales.astype(SCALE_DTYPES[scale_dtype]).astype(np.float32)
        assert rounded.tobytes() == scales.tobytes(), name
        assert not np.signbit(zeros[zeros == 0]).any(), name
        if zero_point == "symmetric":
            assert (zeros == 2 ** (bit_width - 1)).all(), name
        elif zero_point == "integer":
            assert (zeros == np.rint(zeros)).all(), name
            assert ((zeros >= 0) & (zeros < 2**bit_width)).all(), name
        codes = reference.unpack(quantity.data, rows, columns, bit_width)
        assert reference.pack(codes, bit_width) == quantity.data, name  # zeros as padding
