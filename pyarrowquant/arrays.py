"""Dictionaries of numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pyarrowquant._arguments import Progress
from pyarrowquant.recipe import Recipe
from pyarrowquant.tables import quantize_batch_arrow

# numpy names of the types that can be quantized, with their safetensors names.
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

_LARGEST_OFFSET = 2**31 - 1


def quantize_batch(
    weights: dict[str, np.ndarray[Any, Any]],
    bit_width: int = 4,
    continue_on_error: bool = False,
    *,
    group_size: int = 128,
    method: str = "rtn",
    zero_point: str = "integer",
    scale_dtype: str = "float32",
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
        As for `numpy_to_arrow_table`. The other parameters are those of
        `quantize_batch_arrow`.

    Returns
    -------
    dict of str to dict
        For each layer: "quantized_data" (bytes), "scales" and "zero_points" (float32 arrays of
        N * ceil(K/group_size) values, read-only), "shape" (list of int), "bit_width" and
        "group_size" (int), and with ``metrics=True`` "mse", "relative_error", "cosine" and
        "max_abs_error" (float).

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
    result = quantize_batch_arrow(
        numpy_to_arrow_table(weights),
        bit_width,
        continue_on_error,
        group_size=group_size,
        method=method,
        zero_point=zero_point,
        scale_dtype=scale_dtype,
        recipe=recipe,
        quality_floor=quality_floor,
        metrics=metrics,
        sort=sort,
        threads=threads,
        progress=progress,
    )
    layers = {}
    for row in range(result.num_rows):
        layer = {name: _value(result.column(name)[row]) for name in result.column_names}
        layers[layer.pop("layer_name")] = layer
    return layers


def _value(scalar: pa.Scalar) -> Any:
    """Return floats of a list as an array, other values as Python objects."""
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
        `weights` is not a dictionary, a key is not a string, a value not an array.
    ValueError
        An array has another dtype, is not contiguous or is empty.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> table = pyarrowquant.numpy_to_arrow_table({"a": np.ones((2, 3), np.float32)})
    >>> table["shape"].to_pylist()
    [[2, 3]]
    """
    if not isinstance(weights, dict):
        raise TypeError(f"Expected a dictionary of numpy arrays, got {type(weights).__name__}")
    dtypes = [_check_array(name, array) for name, array in weights.items()]
    arrays = list(weights.values())
    columns: dict[str, Any] = {"layer_name": pa.array(weights.keys(), pa.string())}
    if len(set(dtypes)) <= 1 and "BF16" not in dtypes:
        columns["weights"] = _lists(arrays, pa.float16() if "F16" in dtypes else pa.float32())
    else:
        columns["weights"] = _binaries(arrays)
        columns["dtype"] = pa.array(dtypes, pa.string())
    columns["shape"] = pa.array([array.shape for array in arrays], pa.list_(pa.int64()))
    return pa.table(columns)


def _check_array(name: object, array: object) -> str:
    """Return the safetensors name of the array's dtype."""
    if not isinstance(name, str):
        raise TypeError(f"Expected a string as layer name, got {type(name).__name__}: {name!r}")
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"Layer '{name}': Expected numpy array, got {type(array).__name__}, "
            "which is not a numpy array. Use np.asarray()"
        )
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"Layer '{name}': Expected numpy array, got a masked one. Use array.filled(0)"
        )
    dtype = _DTYPES.get(array.dtype.name) if array.dtype.isnative else None
    if dtype is None:
        raise ValueError(
            f"Layer '{name}' has dtype '{array.dtype}', expected 'float32' (float16 and bfloat16 "
            "also work). Convert it with array.astype(np.float32)"
        )
    if array.size == 0:
        raise ValueError(f"Layer '{name}' is empty: its shape is {array.shape}. Leave it out")
    if not array.flags.c_contiguous:
        raise ValueError(f"Layer '{name}' is not contiguous in C order. Use np.ascontiguousarray()")
    return dtype


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
