"""Tables of layers in Parquet and Arrow IPC files, passed on a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import pyarrow as pa

from pyarrowquant._core.rows import check_weights_schema
from pyarrowquant._core.source import INPUT_COLUMNS, Source, weights_bytes
from pyarrowquant.reading import table_files
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.table_files import errors_of
from pyarrowquant.reading.tensors import FLOATS


def parquet_schema(location: Location) -> pa.Schema:
    """Return the columns of a Parquet file that count."""
    return _input_schema(table_files.parquet_schema(location), location)


def parquet_batches(
    location: Location, schema: pa.Schema, batch_bytes: int, only_floats: bool
) -> Iterator[pa.RecordBatch]:
    """Read a row group at a time, or a row at a time where one could be too large."""
    parts = _parts(batch_bytes, only_floats)
    return table_files.parquet_batches(location, schema, batch_bytes, parts)


def ipc_schema(location: Location) -> pa.Schema:
    """Return the columns of an Arrow IPC file or stream that count."""
    return _input_schema(table_files.ipc_schema(location), location)


def ipc_batches(
    location: Location, schema: pa.Schema, batch_bytes: int, only_floats: bool
) -> Iterator[pa.RecordBatch]:
    """Read a record batch at a time, and give slices of it if it is too large."""
    return table_files.ipc_batches(location, schema, _parts(batch_bytes, only_floats))


def _input_schema(schema: pa.Schema, location: Location) -> pa.Schema:
    kept = pa.schema([field for field in schema if field.name in INPUT_COLUMNS])
    with errors_of(location):
        empty = kept.empty_table()
    try:
        check_weights_schema(Source(empty, INPUT_COLUMNS))
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error
    return kept


def _parts(
    batch_bytes: int, only_floats: bool
) -> Callable[[pa.RecordBatch], Iterator[pa.RecordBatch]]:
    def parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        for part in _floats(batch) if only_floats else [batch]:
            yield from _bounded(part, batch_bytes)

    return parts


def _floats(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Leave out rows of raw bytes that cannot be quantized, by slices: nothing is copied."""
    if "dtype" not in batch.schema.names or not _is_raw(batch.schema.field("weights").type):
        yield batch
        return
    first = 0
    for row, dtype in enumerate([*batch.column("dtype").to_pylist(), "end"]):
        if dtype is not None and dtype not in FLOATS:
            if first < row:
                yield batch.slice(first, row - first)
            first = row + 1


def _is_raw(weights: pa.DataType) -> bool:
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(is_kind(weights) for is_kind in kinds)


def _bounded(batch: pa.RecordBatch, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    """Halve what is too large, down to single rows."""
    if batch.num_rows > 1 and weights_bytes(batch) > batch_bytes:
        half = batch.num_rows // 2
        yield from _bounded(batch.slice(0, half), batch_bytes)
        yield from _bounded(batch.slice(half), batch_bytes)
    else:
        yield batch


class TableModel(Model):
    """A table of layers in a file of Parquet or Arrow."""

    tensors = None

    def __init__(self, location: Location, is_parquet: bool) -> None:
        super().__init__(location)
        self._is_parquet = is_parquet
        read = parquet_schema if is_parquet else ipc_schema
        self.schema = read(location)

    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        read = parquet_batches if self._is_parquet else ipc_batches
        return islice(read(self.location, self.schema, batch_bytes, only_floats), skip, None)
