"""Matrices and tensors as values of a column: nested lists, and Arrow's fixed-shape tensors."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def is_list(dtype: pa.DataType) -> bool:
    """Whether values are lists of one of the kinds that Arrow has."""
    return hasattr(dtype, "value_field") and not pa.types.is_dictionary(dtype)


def element_type(dtype: pa.DataType) -> pa.DataType:
    """Return the type of the values of lists, or of lists of lists."""
    while is_list(dtype):
        dtype = dtype.value_type
    return dtype


def shape_of(lists: pa.Scalar) -> list[int]:
    """Return the shape that a value has by itself; lists of one level are assumed to be equal.

    The column must have been checked, with its offsets.
    """
    values = lists.values
    shape = [0 if values is None else len(values)]
    while values is not None and is_list(values.type):
        if pa.types.is_fixed_size_list(values.type):
            shape.append(values.type.list_size)
        else:
            shape.append(len(values[0].values or ()) if len(values) else 0)
        values = values[0].values if len(values) else None
    return shape


def flat(lists: pa.Scalar) -> pa.Array:
    """View all values of a list, or of lists of lists, in their order."""
    values = lists.values
    while is_list(values.type):
        values = values.flatten()
    return values


def is_tensor(dtype: pa.DataType) -> bool:
    """Whether values are fixed-shape tensors."""
    return isinstance(dtype, pa.FixedShapeTensorType)


def is_row_major(dtype: pa.DataType) -> bool:
    """Whether the values of a tensor lie in the order of its dimensions."""
    return dtype.permutation in (None, list(range(len(dtype.shape))))


def tensors_as_lists(data: Any) -> Any:
    """View columns of fixed-shape tensors, of a table or batch, as lists of lists."""
    columns = [_as_lists(column) for column in data.columns]
    return type(data).from_arrays(columns, schema=schema_of_lists(data.schema))


def schema_of_lists(schema: pa.Schema) -> pa.Schema:
    """Return the schema that `tensors_as_lists` makes of one."""
    fields = [
        field.with_type(_lists_type(field.type)) if is_tensor(field.type) else field
        for field in schema
    ]
    return pa.schema(fields, schema.metadata)


def _lists_type(dtype: pa.DataType) -> pa.DataType:
    nested = dtype.value_type
    for size in reversed(dtype.shape):
        nested = pa.list_(nested, size)
    return nested if dtype.shape else dtype.storage_type


def _as_lists(column: Any) -> Any:
    if not is_tensor(column.type):
        return column
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array(map(_as_lists, column.chunks), _lists_type(column.type))
    storage, nested = column.storage, column.type.value_type
    values = storage.values
    for size in reversed(column.type.shape[1:]):
        nested = pa.list_(nested, size)
        values = pa.Array.from_buffers(nested, len(values) // size, [None], children=[values])
    return pa.Array.from_buffers(
        _lists_type(column.type),
        len(storage),
        storage.buffers()[:1],
        storage.null_count,
        storage.offset,
        [values],
    )
