"""Schemas of tables on clusters, which are the same for every batch, whatever is in it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

# What a row of Spark's has in one column is an array of the JVM.
_SPARK_BYTES = 2**31 - 1
# Of columns that have a value or more for every few weights.
_LONG = ("quantized_data", "scales", "zero_points", "weights")

_SPARK_NAMES = {
    pa.string(): "string",
    pa.binary(): "binary",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
}


def large(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose long columns have offsets of 64 bits, which joined batches need."""

    def of(field: pa.Field) -> pa.Field:
        if field.name not in _LONG:
            return field
        if pa.types.is_list(field.type):
            return field.with_type(pa.large_list(field.type.value_field))
        return field.with_type(pa.large_binary())

    return pa.schema(map(of, schema), schema.metadata)


def for_spark(schema: pa.Schema) -> pa.Schema:
    """Return a schema of types that Spark has; it has no unsigned integers."""

    def of(field: pa.Field) -> pa.Field:
        return field.with_type(pa.int16()) if field.type == pa.uint8() else field

    return pa.schema(map(of, schema))


def spark_ddl(schema: pa.Schema) -> str:
    """Return a schema `for_spark` as Spark reads it."""
    return ", ".join(f"{field.name} {_spark_type(field)}" for field in schema)


def _spark_type(field: pa.Field) -> str:
    if not pa.types.is_list(field.type):
        return _SPARK_NAMES[field.type]
    element = field.type.value_type
    if element == pa.float16():
        raise ValueError(
            f"Spark has no type for column '{field.name}', a list of float16. Use dtype='float32'"
        )
    return f"array<{_SPARK_NAMES[element]}>"


def spark_batches(table: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Give a table as batches of a schema `for_spark`.

    Raises
    ------
    ValueError
        A value is larger than Spark can hold.
    """
    for batch in table.to_batches():
        for name in _LONG:
            if name in schema.names:
                _check_sizes(batch, name)
        yield batch.cast(schema)


def _check_sizes(batch: pa.RecordBatch, name: str) -> None:
    column = batch.column(name)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        sizes = pc.binary_length(column)
    else:
        sizes = pc.multiply(
            pc.cast(pc.list_value_length(column), pa.int64()), column.type.value_type.byte_width
        )
    largest = pc.max(sizes).as_py() or 0
    if largest > _SPARK_BYTES:
        row = pc.index(sizes, largest).as_py()
        raise ValueError(
            f"Layer '{batch.column('layer_name')[row]}' has {largest} bytes of {name}, and Spark "
            f"holds {_SPARK_BYTES} in a column of a row. Leave the layer out here, and do it on "
            "one machine or with Ray"
        )
