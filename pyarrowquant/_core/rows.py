"""What rows of weights say of themselves: names and shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core import library
from pyarrowquant._core.binary import bytes_at, is_binary, lengths
from pyarrowquant._core.nested import flat, is_list, shape_of
from pyarrowquant._core.options import quantize_options
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.source import Source, check_data

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


def check_weights_schema(source: Source) -> None:
    """Raise a ValueError where the columns are not those of weights; no data is read."""
    options = replace(quantize_options(), type_names=tuple(source.type_names.items()))
    library.validate(source.schema, options.encoded())


def layers(table: pa.Table) -> Iterator[tuple[str | None, list[int]]]:
    """Give each row's name, or None where it cannot be read, and its shape.

    A row without a shape has that of its weights, one dimension but for nested lists. Shapes that
    Go will refuse come as they are.
    """
    if "shape" in table.column_names:
        shapes = table["shape"].to_pylist()
    else:
        shapes = [None] * table.num_rows
    own = _shapes(table) if None in shapes else None
    for row, (name, shape) in enumerate(zip(_names(table["layer_name"]), shapes, strict=True)):
        yield name, own[row] if own is not None and shape is None else shape


def _names(column: pa.ChunkedArray) -> list[str | None]:
    try:
        names: list[str | None] = column.to_pylist()
    except UnicodeDecodeError:
        return [_name(scalar) for scalar in column]
    return names


def _name(scalar: pa.Scalar) -> str | None:
    try:
        name: str | None = scalar.as_py()
    except UnicodeDecodeError:
        return None
    return name


def _shapes(table: pa.Table) -> list[list[int]]:
    """Return the shape that the weights of each row have by themselves; [0] for a null."""
    raw = "dtype" in table.column_names
    dtypes = table["dtype"].to_pylist() if raw else [None] * table.num_rows
    weights = table["weights"]
    if is_binary(weights.type):
        sizes = [size for chunk in weights.chunks for size in lengths(chunk)]
        return [
            [size // ITEM_BYTES.get(dtype or "", 1)]
            for size, dtype in zip(sizes, dtypes, strict=True)
        ]
    if is_list(weights.type.value_type):
        check_data(table.select(["weights"]), full=True)
    return [shape_of(values) if values.is_valid else [0] for values in weights]


def values_of(table: pa.Table) -> Iterator[npt.NDArray[Any] | None]:
    """View the weights of each row as an array of one dimension; None where they are null.

    The table must have been checked, with its offsets.
    """
    raw = is_binary(table["weights"].type)
    dtypes = table["dtype"].to_pylist() if raw else []
    row = 0
    for chunk in table["weights"].chunks:
        for i, values in enumerate(chunk):
            if raw:
                yield _raw_values(chunk, i, dtypes[row])
            else:
                floats = flat(values) if values.is_valid else None
                yield None if floats is None or floats.null_count else floats.to_numpy()
            row += 1


def _raw_values(chunk: pa.Array, i: int, dtype: str | None) -> npt.NDArray[Any] | None:
    data = bytes_at(chunk, i)
    if data is None or dtype is None:
        return None
    if dtype not in ITEM_BYTES:
        raise ValueError(f"dtype {quoted(dtype)} must be one of {', '.join(ITEM_BYTES)}")
    if data.size % ITEM_BYTES[dtype]:
        raise ValueError(f"weights of {data.size} bytes are no whole number of {dtype} elements")
    values = data.view(_bfloat16() if dtype == "BF16" else {"F32": "<f4", "F16": "<f2"}[dtype])
    values.flags.writeable = False
    return values


def _bfloat16() -> Any:
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("Arrays of bfloat16 need ml_dtypes: pip install ml_dtypes") from None
    return ml_dtypes.bfloat16
