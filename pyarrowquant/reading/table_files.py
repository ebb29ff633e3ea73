"""Tables in Parquet and Arrow IPC files; no batch is touched before it is validated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pyarrowquant._core.source import column_bytes
from pyarrowquant.reading.location import Location

_Parts = Callable[[pa.RecordBatch], Iterable[pa.RecordBatch]]

# What they hold, by the suffixes of their names.
TABLES = {".parquet": "parquet", ".arrow": "arrow", ".ipc": "arrow", ".feather": "arrow"}
_MAGIC = b"ARROW1"
_COLUMN_BUFFER = 1 << 20

# How much larger than their encoded bytes values may be: numbers of a dictionary of 16.
_EXPANSION = 8

GATHERED = 1 << 20  # bytes of small batches that are passed on as one, as each costs milliseconds


@contextmanager
def errors_of(location: Location) -> Iterator[None]:
    """Name the file in PyArrow's errors of files that are damaged."""
    try:
        yield
    # The last two for names of fields that are corrupt.
    except (pa.ArrowException, OSError, UnicodeError, SystemError) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{location} cannot be read: {message}") from error


def parquet_schema(location: Location) -> pa.Schema:
    """Return the columns of a Parquet file."""
    with location.open() as file, errors_of(location):
        return _named(_parquet(file).schema_arrow)


def parquet_batches(
    location: Location, schema: pa.Schema, batch_bytes: int, parts: _Parts
) -> Iterator[pa.RecordBatch]:
    """Read a row group at a time, or a row at a time where one could be too large.

    Parameters
    ----------
    location : Location
    schema : pyarrow.Schema
        The columns to read.
    batch_bytes : int
    parts : callable
        Gives a batch in parts; small ones are gathered. What was read leaves memory before the
        next batch is read.
    """
    with location.open() as file, errors_of(location):
        read = _row_groups(_parquet(file), schema, batch_bytes)
        yield from _passed_on(file, read, schema, batch_bytes, parts)


def _row_groups(parquet: Any, schema: pa.Schema, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    for group in range(parquet.num_row_groups):
        metadata = parquet.metadata.row_group(group)
        # The sizes of columns would be better, but PyArrow 26 aborts where they are corrupt.
        small = _EXPANSION * metadata.total_byte_size <= batch_bytes
        rows = metadata.num_rows if small else 1
        yield from parquet.iter_batches(max(rows, 1), row_groups=[group], columns=schema.names)


def ipc_schema(location: Location) -> pa.Schema:
    """Return the columns of an Arrow IPC file or stream."""
    with location.open() as file, errors_of(location):
        return _named(_ipc(file)[0])


def ipc_batches(
    location: Location, schema: pa.Schema, batch_bytes: int, parts: _Parts, only: bool = False
) -> Iterator[pa.RecordBatch]:
    """Read the columns of a schema, a record batch at a time.

    What was read leaves memory after each of the `parts` of a batch; small ones are gathered.
    `only` unpacks no other columns of compressed files, but copies what it reads.
    """
    with location.open() as file, errors_of(location):
        read = _ipc(file, schema.names if only else ())[1]
        yield from _passed_on(file, read, schema, batch_bytes, parts)


def _passed_on(
    file: Any, read: Iterator[pa.RecordBatch], schema: pa.Schema, batch_bytes: int, parts: _Parts
) -> Iterator[pa.RecordBatch]:
    in_parts = (part for batch in read for part in parts(_validated(batch, schema)))
    for batch in _gathered(in_parts, min(batch_bytes, GATHERED)):
        yield batch
        file.forget_pages()


def _gathered(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    """Make one batch of those that follow each other and have no more bytes together."""
    small: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        more = column_bytes(batch.columns)
        if size + more > most:
            yield from _joined(small)
            small, size = [], 0
        if more > most:
            yield batch
        else:
            small.append(batch)
            size += more
    yield from _joined(small)


def _joined(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    if len(batches) < 2:
        return batches
    try:
        return list(pa.Table.from_batches(batches).combine_chunks().to_batches())
    except pa.ArrowException:  # dictionaries that have more entries together than their numbers
        return batches


def _parquet(file: Any) -> Any:
    import pyarrow.parquet as pq

    # The buffer keeps it from reading the columns of a whole row group at once.
    return pq.ParquetFile(file.stream(), buffer_size=_COLUMN_BUFFER, pre_buffer=False)


def _ipc(file: Any, columns: Sequence[str] = ()) -> tuple[Any, Iterator[Any]]:
    """Return the schema and the batches, of the file format or of the stream format.

    If columns are given, others are not unpacked.
    """
    options = pa.ipc.IpcReadOptions(included_fields=_positions(file, columns))
    if _is_ipc_file(file):
        reader = pa.ipc.open_file(file.stream(), options=options)
        return reader.schema, map(reader.get_batch, range(reader.num_record_batches))
    stream = file.stream()
    stream.seek(0)
    reader = pa.ipc.open_stream(stream, options=options)
    return reader.schema, iter(reader)


def _is_ipc_file(file: Any) -> bool:
    return bool(file.size >= len(_MAGIC) and file.buffer(0, len(_MAGIC)).to_pybytes() == _MAGIC)


def _positions(file: Any, columns: Sequence[str]) -> list[int] | None:
    """Return the positions of columns in a file, or None for all."""
    if not columns:
        return None
    names = _named(_ipc(file)[0]).names
    return [position for position, name in enumerate(names) if name in columns]


def _named(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose names are text, which PyArrow finds out when they are asked for."""
    _ = schema.names
    return schema


def _validated(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [batch.column(name) for name in schema.names]
    selected = pa.RecordBatch.from_arrays(columns, schema=schema)
    selected.validate(full=True)  # offsets too; of weights and codes, no values are read
    return selected
