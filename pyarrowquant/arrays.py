"""Dictionaries of numpy arrays."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pyarrowquant._core.arguments import Progress
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.source import ENCODED_COLUMNS
from pyarrowquant.errors import (
    ArgumentTypeError,
    LayerError,
    LayerTypeError,
    QuantizationError,
    SkippedLayerWarning,
    layers_failed,
    users_level,
)
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.tables import quantize_batch_arrow

# numpy names of the types that can be quantized, with their safetensors names.
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

_LARGEST_OFFSET = 2**31 - 1


def quantize_batch(
    weights: dict[str, np.ndarray[Any, Any]],
    bit_width: int | None = None,
    continue_on_error: bool = False,
    *,
    group_size: int | None = None,
    method: str = "rtn",
    zero_point: str | None = None,
    scale_dtype: str | None = None,
    encoding: str = "int",
    recipe: Recipe | None = None,
    quality_floor: float | Mapping[str, float] | None = None,
    metrics: bool = False,
    sort: bool = True,
    threads: int | None = None,
    progress: Progress = None,
) -> dict[str, dict[str, Any]]:
    """Quantize a dictionary of numpy arrays.

    Parameters
    ----------
    weights : dict of str to ndarray
        As for `numpy_to_arrow_table`; arrays that it refuses are failing layers. The other
        parameters are those of `quantize_batch_arrow`.

    Returns
    -------
    dict of str to dict
        For each layer: "quantized_data" (bytes), "scales" and "zero_points" (float32 arrays of
        N * ceil(K/group_size) values, read-only), "shape" (list of int), "bit_width" and
        "group_size" (int), and with ``metrics=True`` "mse", "relative_error", "cosine" and
        "max_abs_error" (float). A layer of another encoding than "int" also has "encoding", and
        of "levels", "super_scales" and "super_minimums" those that it needs; its "zero_points" are
        None if all are 0.

    Raises
    ------
    QuantizationError, ValueError, TypeError
        As `quantize_batch_arrow` and `numpy_to_arrow_table`.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> layers = pyarrowquant.quantize_batch({"a": np.arange(4, dtype=np.float32)}, bit_width=2)
    >>> layers["a"]["quantized_data"].hex(), layers["a"]["scales"].tolist()
    ('e4', [1.0])
    """
    usable, unusable = _parted(weights)
    try:
        result = quantize_batch_arrow(
            _table(usable),
            bit_width,
            continue_on_error,
            group_size=group_size,
            method=method,
            zero_point=zero_point,
            scale_dtype=scale_dtype,
            encoding=encoding,
            recipe=recipe,
            quality_floor=quality_floor,
            metrics=metrics,
            sort=sort,
            threads=threads,
            progress=progress,
        )
    except QuantizationError as failed:
        if not unusable:
            raise
        rows = {name: row for row, name in enumerate(weights)}
        others = [replace(each, row=rows[str(each.layer_name)]) for each in failed.errors]
        raise _failure(weights, [*unusable, *others]) from failed
    if unusable and not continue_on_error:
        raise _failure(weights, unusable)
    for error in unusable:
        warnings.warn(f"Skipped: {error.message}", SkippedLayerWarning, stacklevel=users_level())
    layers = {}
    for row in range(result.num_rows):
        layer = {name: _value(result.column(name)[row]) for name in result.column_names}
        for name in ENCODED_COLUMNS & layer.keys():
            if layer[name] is None or (name == "encoding" and layer[name] == INTEGER):
                del layer[name]
        layers[layer.pop("layer_name")] = layer
    return layers


def _value(scalar: pa.Scalar) -> Any:
    """Return floats of a list as an array, other values as Python objects."""
    if not scalar.is_valid:
        return None
    is_list = pa.types.is_list(scalar.type) or pa.types.is_large_list(scalar.type)
    if is_list and pa.types.is_floating(scalar.type.value_type):
        return scalar.values.to_numpy()
    return scalar.as_py()


def numpy_to_arrow_table(weights: dict[str, np.ndarray[Any, Any]]) -> pa.Table:
    """Make a table of weights from numpy arrays, without a copy.

    Parameters
    ----------
    weights : dict of str to ndarray
        C-contiguous, not empty, float32, float16 or bfloat16 (of ml_dtypes), of any shape. The
        table keeps the arrays alive; do not write to them while it is in use.

    Returns
    -------
    pyarrow.Table
        layer_name string, weights, shape list<int64>; one chunk a layer. weights is a list of
        float32 or of float16 where all arrays are; otherwise binary, with a dtype column.

    Raises
    ------
    TypeError
        `weights` is not a dictionary, a key is not a string, a value not an array; a ValueError
        as well.
    QuantizationError
        Arrays have another dtype, are not contiguous, are empty, or are none; ``errors`` name all.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> table = pyarrowquant.numpy_to_arrow_table({"a": np.ones((2, 3), np.float32)})
    >>> table["shape"].to_pylist()
    [[2, 3]]
    """
    usable, unusable = _parted(weights)
    if unusable:
        raise _failure(weights, unusable)
    return _table(usable)


def _table(weights: dict[str, np.ndarray[Any, Any]]) -> pa.Table:
    arrays = list(weights.values())
    dtypes = [_DTYPES[array.dtype.name] for array in arrays]
    columns: dict[str, Any] = {"layer_name": pa.array(weights.keys(), pa.string())}
    if len(set(dtypes)) <= 1 and "BF16" not in dtypes:
        columns["weights"] = _lists(arrays, pa.float16() if "F16" in dtypes else pa.float32())
    else:
        columns["weights"] = _binaries(arrays)
        columns["dtype"] = pa.array(dtypes, pa.string())
    columns["shape"] = pa.array([array.shape for array in arrays], pa.list_(pa.int64()))
    return pa.table(columns)


def _parted(
    weights: object,
) -> tuple[dict[str, np.ndarray[Any, Any]], list[LayerError]]:
    """Return the arrays that can be quantized, and what is wrong with the others."""
    if not isinstance(weights, dict):
        kind = type(weights).__name__
        raise ArgumentTypeError(f"Expected a dictionary of numpy arrays, got {kind}")
    usable, unusable = {}, []
    for row, (name, array) in enumerate(weights.items()):
        if not isinstance(name, str):
            kind = type(name).__name__
            raise ArgumentTypeError(f"Expected a string as layer name, got {kind}: {name!r}")
        problem = _problem(array)
        if problem is None:
            usable[name] = array
        else:
            unusable.append(LayerError(name, row, None, "array", f"Layer '{name}'{problem}"))
    return usable, unusable


def _problem(array: object) -> str | None:
    """Say what is wrong with an array, after the name of its layer."""
    if not isinstance(array, np.ndarray):
        return (
            f": Expected numpy array, got {type(array).__name__}, "
            "which is not a numpy array. Use np.asarray()"
        )
    if isinstance(array, np.ma.MaskedArray):
        return ": Expected numpy array, got a masked one. Use array.filled(0)"
    if not array.dtype.isnative or array.dtype.name not in _DTYPES:
        return (
            f" has dtype '{array.dtype}', expected 'float32' (float16 and bfloat16 "
            "also work). Convert it with array.astype(np.float32)"
        )
    if array.size == 0:
        return f" is empty: its shape is {array.shape}. Leave it out"
    if not array.flags.c_contiguous:
        return " is not contiguous in C order. Use np.ascontiguousarray()"
    return None


def _failure(weights: dict[str, Any], errors: list[LayerError]) -> QuantizationError:
    """Make one exception for all layers, a TypeError as well where some are no arrays."""
    arrays = all(_is_array(weights[str(error.layer_name)]) for error in errors)
    by_row = sorted(errors, key=lambda error: error.row)
    return layers_failed(by_row, QuantizationError if arrays else LayerTypeError)


def _is_array(array: object) -> bool:
    return isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray)


def _lists(arrays: list[np.ndarray[Any, Any]], element: pa.DataType) -> pa.ChunkedArray:
    large = any(array.size > _LARGEST_OFFSET for array in arrays)
    list_type, offset_type = (
        (pa.large_list(element), np.int64) if large else (pa.list_(element), np.int32)
    )
    chunks = []
    for array in arrays:
        values = pa.Array.from_buffers(element, array.size, [None, _buffer(array)])
        offsets = pa.py_buffer(np.array([0, array.size], offset_type))
        chunks.append(pa.Array.from_buffers(list_type, 1, [None, offsets], children=[values]))
    return pa.chunked_array(chunks, list_type)


def _binaries(arrays: list[np.ndarray[Any, Any]]) -> pa.ChunkedArray:
    large = any(array.nbytes > _LARGEST_OFFSET for array in arrays)
    binary_type, offset_type = (pa.large_binary(), np.int64) if large else (pa.binary(), np.int32)
    chunks = []
    for array in arrays:
        offsets = pa.py_buffer(np.array([0, array.nbytes], offset_type))
        chunks.append(pa.Array.from_buffers(binary_type, 1, [None, offsets, _buffer(array)]))
    return pa.chunked_array(chunks, binary_type)


def _buffer(array: np.ndarray[Any, Any]) -> pa.Buffer:
    # bfloat16 has no format in the buffer protocol, its bytes do.
    return pa.py_buffer(np.asarray(array).reshape(-1).view(np.uint8))
