"""Tables of layers in Parquet and Arrow IPC files, passed on a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pyarrowquant._files import Location
from pyarrowquant._source import INPUT_COLUMNS, weights_bytes
from pyarrowquant._tensors import FLOATS
from pyarrowquant.tables import validate_arrow_input

# The last two for names of fields that are corrupt.
_FAILURES = (pa.ArrowException, OSError, UnicodeError, SystemError)

_MAGIC = b"ARROW1"
_COLUMN_BUFFER = 1 << 20

# How much larger than their encoded bytes values may be: numbers of a dictionary of 16.
_EXPANSION = 8


def parquet_schema(location: Location) -> pa.Schema:
    """Return the columns of a Parquet file that count."""
    with location.open() as file:
        return _input_schema(_parquet(file, location).schema_arrow, location)


def parquet_batches(
    location: Location, schema: pa.Schema, batch_bytes: int, only_floats: bool
) -> Iterator[pa.RecordBatch]:
    """Read a row group at a time, or a row at a time where one could be too large."""
    with location.open() as file:
        parquet = _parquet(file, location)
        for group in range(parquet.num_row_groups):
            metadata = parquet.metadata.row_group(group)
            # The sizes of columns would be better, but PyArrow 26 aborts where they are corrupt.
            small = _EXPANSION * metadata.total_byte_size <= batch_bytes
            rows = metadata.num_rows if small else 1
            read = parquet.iter_batches(max(rows, 1), row_groups=[group], columns=schema.names)
            for batch in _selected(read, schema, location):
                yield from _parts(batch, batch_bytes, only_floats)
                file.forget_pages()


def ipc_schema(location: Location) -> pa.Schema:
    """Return the columns of an Arrow IPC file or stream that count."""
    with location.open() as file:
        return _input_schema(_ipc(file, location)[0], location)


def ipc_batches(
    location: Location, schema: pa.Schema, batch_bytes: int, only_floats: bool
) -> Iterator[pa.RecordBatch]:
    """Read a record batch at a time, and give slices of it if it is too large."""
    with location.open() as file:
        for batch in _selected(_ipc(file, location)[1], schema, location):
            for part in _parts(batch, batch_bytes, only_floats):
                yield part
                file.forget_pages()


def _parquet(file: Any, location: Location) -> Any:
    import pyarrow.parquet as pq

    try:
        # The buffer keeps it from reading the columns of a whole row group at once.
        return pq.ParquetFile(file.stream(), buffer_size=_COLUMN_BUFFER, pre_buffer=False)
    except _FAILURES as error:
        raise _unreadable(location, error) from error


def _ipc(file: Any, location: Location) -> tuple[Any, Iterator[Any]]:
    """Return the schema and the batches, of the file format or of the stream format."""
    try:
        if file.size >= len(_MAGIC) and file.buffer(0, len(_MAGIC)).to_pybytes() == _MAGIC:
            reader = pa.ipc.open_file(file.stream())
            return reader.schema, map(reader.get_batch, range(reader.num_record_batches))
        stream = file.stream()
        stream.seek(0)
        reader = pa.ipc.open_stream(stream)
    except _FAILURES as error:
        raise _unreadable(location, error) from error
    return reader.schema, iter(reader)


def _selected(
    batches: Iterator[Any], schema: pa.Schema, location: Location
) -> Iterator[pa.RecordBatch]:
    """Give the columns that count of each batch; errors of the file name it."""
    try:
        for batch in batches:
            columns = [batch.column(name) for name in schema.names]
            selected = pa.RecordBatch.from_arrays(columns, schema=schema)
            selected.validate(full=True)  # offsets too; of weights, no values are read
            yield selected
    except _FAILURES as error:
        raise _unreadable(location, error) from error


def _unreadable(location: Location, error: Exception) -> ValueError:
    return ValueError(f"{location} cannot be read: {' '.join(str(error).split())}")


def _input_schema(schema: pa.Schema, location: Location) -> pa.Schema:
    try:
        kept = pa.schema([field for field in schema if field.name in INPUT_COLUMNS])
        validate_arrow_input(kept.empty_table())
    except _FAILURES as error:
        raise _unreadable(location, error) from error
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error
    return kept


def _parts(batch: pa.RecordBatch, batch_bytes: int, only_floats: bool) -> Iterator[pa.RecordBatch]:
    for part in _floats(batch) if only_floats else [batch]:
        yield from _bounded(part, batch_bytes)


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
