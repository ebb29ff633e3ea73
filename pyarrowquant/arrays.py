"""Dictionaries of numpy arrays."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pyarrowquant._core import dlpack
from pyarrowquant._core.arguments import Progress, wrong_type
from pyarrowquant._core.columns import binaries, lists
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.keywords import with_meant
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.source import ENCODED_COLUMNS, is_arrow
from pyarrowquant.errors import (
    ArgumentTypeError,
    LayerError,
    LayerTypeError,
    QuantizationError,
    SkippedLayerWarning,
    layers_failed,
    users_level,
)
from pyarrowquant.recipes.recipe import GivenRecipe
from pyarrowquant.tables import quantize_batch_arrow

# numpy names of the types that can be quantized, with their safetensors names.
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@with_meant
def quantize_batch(
    weights: Mapping[str, Any],
    bit_width: int | None = None,
    continue_on_error: bool = False,
    *,
    group_size: int | str | None = None,
    method: str = "rtn",
    zero_point: str | None = None,
    scale_dtype: str | None = None,
    encoding: str = "int",
    recipe: GivenRecipe | None = None,
    quality_floor: float | Mapping[str, float] | None = None,
    metrics: bool = False,
    sort: bool = True,
    threads: int | None = None,
    progress: Progress = None,
) -> dict[str, dict[str, Any]]:
    """Quantize a dictionary of numpy arrays, or of tensors such as a state_dict of torch.

    Parameters
    ----------
    weights : dict of str to ndarray or tensor
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


def numpy_to_arrow_table(weights: Mapping[str, Any]) -> pa.Table:
    """Make a table of weights from numpy arrays or tensors, without a copy.

    Parameters
    ----------
    weights : dict of str to ndarray or tensor
        C-contiguous, not empty, float32, float16 or bfloat16 (of ml_dtypes), of any shape. A tensor
        is what has ``__dlpack__`` and lies in the memory of the processor: of torch, as in a
        state_dict, of MLX or of JAX. The table keeps them alive; do not write to them while it is
        in use.

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


@dataclass(frozen=True)
class _Layer:
    """Weights that can be quantized.

    Attributes
    ----------
    dtype : {"F32", "F16", "BF16"}
    values : ndarray
        Contiguous, with elements of any type of that size.
    """

    dtype: str
    values: np.ndarray[Any, Any]


def _table(weights: dict[str, _Layer]) -> pa.Table:
    layers = list(weights.values())
    arrays = [layer.values for layer in layers]
    dtypes = [layer.dtype for layer in layers]
    columns: dict[str, Any] = {"layer_name": pa.array(weights.keys(), pa.string())}
    if len(set(dtypes)) <= 1 and "BF16" not in dtypes:
        columns["weights"] = lists(arrays, pa.float16() if "F16" in dtypes else pa.float32())
    else:
        columns["weights"] = binaries(arrays)
        columns["dtype"] = pa.array(dtypes, pa.string())
    columns["shape"] = pa.array([array.shape for array in arrays], pa.list_(pa.int64()))
    return pa.table(columns)


def _parted(weights: object) -> tuple[dict[str, _Layer], list[LayerError]]:
    """Return the arrays that can be quantized, and what is wrong with the others."""
    if not isinstance(weights, Mapping):
        hint = ""
        if isinstance(weights, (str, os.PathLike)):
            hint = ". For a file use quantize_batch_arrow(read_weights(path)), or convert()"
        elif is_arrow(weights):
            hint = ". For an Arrow table use quantize_batch_arrow()"
        kind = type(weights).__name__
        raise ArgumentTypeError(f"Expected a dictionary of numpy arrays, got {kind}{hint}")
    usable, unusable = {}, []
    for row, (name, array) in enumerate(weights.items()):
        if not isinstance(name, str):
            raise wrong_type("Expected a string as layer name", name)
        layer = _layer(array)
        if isinstance(layer, _Layer):
            usable[name] = layer
        else:
            unusable.append(LayerError(name, row, None, "array", f"Layer {quoted(name)}{layer}"))
    return usable, unusable


def _layer(array: object) -> _Layer | str:
    """Return an array that can be quantized, or say what is wrong, after the layer's name."""
    if dlpack.is_tensor(array):
        try:
            dtype, values = dlpack.view(array)
        except ValueError as error:
            return f" cannot be read: {error}"
        return _checked(values, dtype, "its contiguous()")
    if not isinstance(array, np.ndarray):
        return (
            f": Expected numpy array, got {type(array).__name__}, "
            "which is not a numpy array. Use np.asarray()"
        )
    if isinstance(array, np.ma.MaskedArray):
        return ": Expected numpy array, got a masked one. Use array.filled(0)"
    dtype = array.dtype.name if array.dtype.isnative else str(array.dtype)
    return _checked(array, dtype, "np.ascontiguousarray()")


def _checked(array: np.ndarray[Any, Any], dtype: str, contiguous: str) -> _Layer | str:
    if dtype not in _DTYPES:
        return (
            f" has dtype '{dtype}', expected 'float32' (float16 and bfloat16 "
            "also work). Convert it with array.astype(np.float32)"
        )
    if array.size == 0:
        return f" is empty: its shape is {array.shape}. Leave it out"
    if not array.flags.c_contiguous:
        return f" is not contiguous in C order. Use {contiguous}"
    return _Layer(_DTYPES[dtype], array)


def _failure(weights: Mapping[str, Any], errors: list[LayerError]) -> QuantizationError:
    """Make one exception for all layers, a TypeError as well where some are no arrays."""
    arrays = all(_is_array(weights[str(error.layer_name)]) for error in errors)
    by_row = sorted(errors, key=lambda error: error.row)
    return layers_failed(by_row, QuantizationError if arrays else LayerTypeError)


def _is_array(array: object) -> bool:
    return dlpack.is_tensor(array) or (
        isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray)
    )
