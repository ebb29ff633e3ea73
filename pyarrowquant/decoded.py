"""Dictionaries of numpy arrays that were decoded, or that a table has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pyarrowquant._core.arguments import integer, wrong_type
from pyarrowquant._core.columns import binaries, lists
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.quoting import quoted, shortened
from pyarrowquant._core.rows import check_weights_schema, layers, values_of
from pyarrowquant._core.source import ENCODED_COLUMNS, INPUT_COLUMNS, Source, check_data, is_arrow
from pyarrowquant.errors import (
    ArgumentTypeError,
    LayerError,
    QuantizationError,
    layers_failed,
)
from pyarrowquant.tables import dequantize_batch_arrow


def _float_lists(arrays: Sequence[np.ndarray[Any, Any] | None]) -> pa.ChunkedArray:
    return lists(arrays, pa.float32())


_PARTS: dict[str, Callable[[list[Any]], Any]] = {
    "quantized_data": binaries,
    "scales": _float_lists,
    "zero_points": _float_lists,
    "shape": lambda shapes: pa.array(shapes, pa.list_(pa.int64())),
    "bit_width": lambda widths: pa.array(widths, pa.int64()),
    "group_size": lambda sizes: pa.array(sizes, pa.int64()),
    "encoding": lambda encodings: pa.array(encodings, pa.string()),
    "levels": _float_lists,
    "super_scales": _float_lists,
    "super_minimums": _float_lists,
}
_IN_EVERY_LAYER = _PARTS.keys() - ENCODED_COLUMNS
_NUMBERS = {"scales", "zero_points", "levels", "super_scales", "super_minimums"}
_MAY_BE_NONE = _NUMBERS - {"scales"}


def dequantize_batch(
    quantized: Mapping[str, Mapping[str, Any]],
    *,
    dtype: str = "float32",
    threads: int | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Decode what `quantize_batch` gave: w = (q - zero_point) * scale, in float32.

    Parameters
    ----------
    quantized : dict of str to dict
        Each with "quantized_data", "scales", "zero_points", "shape", "bit_width" and "group_size",
        and what else `quantize_batch` gave for an encoding; other keys are ignored.
    dtype : {"float32", "float16"}
        Type of the weights; float16 is rounded to nearest, ties to even.
    threads : int or None
        Workers; None for the CPUs that this process may use.

    Returns
    -------
    dict of str to ndarray
        In the order of `quantized`, with their shapes; read-only.

    Raises
    ------
    QuantizationError
        A layer is corrupt, or its weights are beyond float16; ``errors`` name all such layers.
    ValueError
        A part of a layer is missing or cannot be read, or an argument is out of bounds.
    TypeError
        An argument has the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> layers = pyarrowquant.quantize_batch({"a": np.arange(4, dtype=np.float32)}, bit_width=2)
    >>> pyarrowquant.dequantize_batch(layers)
    {'a': array([0., 1., 2., 3.], dtype=float32)}
    """
    if not isinstance(quantized, Mapping):
        hint = ". For a table use dequantize_batch_arrow()" if is_arrow(quantized) else ""
        raise ArgumentTypeError(
            "Expected a dictionary of layers of quantize_batch(), got "
            f"{type(quantized).__name__}{hint}"
        )
    columns: dict[str, Any] = {"layer_name": pa.array(_names(quantized), pa.string())}
    for part, column_of in _PARTS.items():
        columns[part] = column_of([_part(name, layer, part) for name, layer in quantized.items()])
    return arrow_to_numpy(dequantize_batch_arrow(pa.table(columns), dtype=dtype, threads=threads))


def _names(layers: Mapping[str, Any]) -> list[str]:
    for name in layers:
        if not isinstance(name, str):
            raise wrong_type("Expected a string as layer name", name)
    return list(layers)


def _part(name: str, layer: object, part: str) -> Any:
    """Return a part of a quantized layer as its column takes it."""
    if not isinstance(layer, Mapping):
        raise ArgumentTypeError(
            f"Layer {quoted(name)}: Expected a dictionary as of quantize_batch(), got "
            f"{type(layer).__name__}"
        )
    if part not in layer and part in _IN_EVERY_LAYER:
        raise ValueError(f"Layer {quoted(name)} has no '{part}'. Give what quantize_batch() gave")
    if part == "encoding":
        return _encoding(name, layer.get(part, INTEGER))
    if part in _MAY_BE_NONE and layer.get(part) is None:
        return None
    try:
        if part == "quantized_data":
            return np.frombuffer(layer[part], np.uint8)
        if part in _NUMBERS:
            return np.ascontiguousarray(layer[part], np.float32).reshape(-1)
        if part == "shape":
            return [integer("shape", size) for size in layer[part]]
        return integer(part, layer[part])
    except (TypeError, ValueError, BufferError) as error:
        raise ValueError(
            f"Layer {quoted(name)}: '{part}' cannot be read: {shortened(str(error))}"
        ) from error


def _encoding(name: str, said: object) -> str:
    if not isinstance(said, str):
        raise ArgumentTypeError(
            f"Layer {quoted(name)}: 'encoding' is {said!r}, expected a string. Leave it out for "
            f"{INTEGER!r}"
        )
    return said


def arrow_to_numpy(table: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return the weights of a table as arrays: the inverse of `numpy_to_arrow_table`.

    Parameters
    ----------
    table : pyarrow.Table or any Arrow producer
        As for `quantize_batch_arrow`; or what `dequantize_batch_arrow` gave.

    Returns
    -------
    dict of str to ndarray
        In the order of the table, each of the layer's shape: float32, float16, float64, or bfloat16
        of ml_dtypes, which must be installed for it. They are read-only views of the table's
        memory, which they keep alive.

    Raises
    ------
    QuantizationError
        Layers are null, have a shape that does not fit or a name that is there before; ``errors``
        name all of them.
    ValueError
        The schema does not fit, or the data is corrupt.
    TypeError
        `table` is not Arrow data.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> table = pyarrowquant.numpy_to_arrow_table({"a": np.ones((2, 3), np.float32)})
    >>> pyarrowquant.arrow_to_numpy(table)["a"].shape
    (2, 3)
    """
    source = Source(table, INPUT_COLUMNS)
    check_weights_schema(source)
    data = source.read_all()
    check_data(data, full=True)
    found: dict[str, np.ndarray[Any, Any]] = {}
    errors = []
    for row, ((name, shape), values) in enumerate(zip(layers(data), values_of(data), strict=True)):
        problem = _misfit(name, shape, values, found)
        if problem is not None:
            kind, text = problem
            errors.append(LayerError(name, row, None, kind, text))
        elif name is not None and values is not None:
            found[name] = values.reshape(shape)
    if errors:
        raise layers_failed(errors, QuantizationError)
    return found


def _misfit(
    name: str | None,
    shape: list[int],
    values: np.ndarray[Any, Any] | None,
    before: Mapping[str, object],
) -> tuple[str, str] | None:
    """Say why a row is no array, with the kind of the error."""
    if name is None:
        return "null", "A layer has no name, or one that is not UTF-8"
    if values is None or None in shape:
        return "null", f"Layer {quoted(name)} has null in its weights or shape"
    if name in before:
        return "duplicate", f"Layer {quoted(name)} is there twice"
    if min(shape, default=0) < 0 or math.prod(shape) != values.size:
        return (
            "shape_mismatch",
            f"Layer {quoted(name)}: Shape mismatch: shape {shape} does not fit {values.size} "
            "weights",
        )
    return None
