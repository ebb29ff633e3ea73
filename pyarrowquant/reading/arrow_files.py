"""Tables of layers in Parquet and Arrow IPC files, passed on a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from functools import cached_property
from itertools import islice

import pyarrow as pa

from pyarrowquant._core.binary import is_binary
from pyarrowquant._core.nested import element_type, schema_of_lists, tensors_as_lists
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.rows import check_weights_schema, layers
from pyarrowquant._core.shapes import product
from pyarrowquant._core.source import INPUT_COLUMNS, Source, weights_bytes
from pyarrowquant.reading import table_files
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.model import BATCH_BYTES, OF_CODES, Model
from pyarrowquant.reading.row_names import NAMES, check_names
from pyarrowquant.reading.safetensors_header import BITS
from pyarrowquant.reading.table_files import errors_of
from pyarrowquant.reading.tensors import FLOATS, Tensor, in_a_row

_LIST_DTYPES = {pa.float16(): "F16", pa.float32(): "F32", pa.float64(): "F64"}


def parquet_schema(location: Location) -> pa.Schema:
    """Return the columns of a Parquet file that count."""
    return _input_schema(table_files.parquet_schema(location), location)


def parquet_batches(
    location: Location, schema: pa.Schema, batch_bytes: int, only_floats: bool
) -> Iterator[pa.RecordBatch]:
    """Read a row group at a time, or a row at a time where one could be too large."""
    parts = _parts(location, batch_bytes, only_floats)
    return table_files.parquet_batches(location, schema, batch_bytes, parts)


def ipc_schema(location: Location) -> pa.Schema:
    """Return the columns of an Arrow IPC file or stream that count."""
    return _input_schema(table_files.ipc_schema(location), location)


def ipc_batches(
    location: Location, schema: pa.Schema, batch_bytes: int, only_floats: bool
) -> Iterator[pa.RecordBatch]:
    """Read a record batch at a time, and give slices of it if it is too large."""
    parts = _parts(location, batch_bytes, only_floats)
    return table_files.ipc_batches(location, schema, batch_bytes, parts)


def _input_schema(schema: pa.Schema, location: Location) -> pa.Schema:
    kept = pa.schema([field for field in schema if field.name in INPUT_COLUMNS])
    with errors_of(location):
        empty = pa.Table.from_batches([], kept)
    try:
        check_weights_schema(Source(empty, INPUT_COLUMNS))
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error
    return kept


def _parts(
    location: Location, batch_bytes: int, only_floats: bool
) -> Callable[[pa.RecordBatch], Iterator[pa.RecordBatch]]:
    def parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        batch = tensors_as_lists(batch)
        for part in _floats(batch, location) if only_floats else [batch]:
            yield from _bounded(part, batch_bytes)

    return parts


def _floats(batch: pa.RecordBatch, location: Location) -> Iterator[pa.RecordBatch]:
    """Leave out rows of raw bytes that cannot be quantized, by slices: nothing is copied."""
    names = batch.schema.names
    if not {"dtype", "weights"} <= set(names) or not is_binary(batch["weights"].type):
        yield batch
        return
    first = 0
    for row, dtype in enumerate([*batch.column("dtype").to_pylist(), "BOOL"]):  # as an end
        if dtype is not None and dtype not in FLOATS:
            _check_dtype(dtype, location)
            if first < row:
                yield batch.slice(first, row - first)
            first = row + 1


def _check_dtype(dtype: str, location: Location) -> None:
    """Raise where a name is none of a dtype: nobody would know what the bytes are."""
    if dtype not in BITS and not dtype.startswith(OF_CODES):
        others = ", ".join(name for name in BITS if name not in FLOATS)
        raise ValueError(
            f"{location}: the dtype {quoted(dtype)} is unknown. Raw bytes that can be quantized "
            f"are F32, F16 or BF16; others are left out: {others}"
        )


def _bounded(batch: pa.RecordBatch, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    """Halve what is too large, down to single rows."""
    if batch.num_rows > 1 and weights_bytes(batch) > batch_bytes:
        half = batch.num_rows // 2
        yield from _bounded(batch.slice(0, half), batch_bytes)
        yield from _bounded(batch.slice(half), batch_bytes)
    else:
        yield batch


def _tensors(batch: pa.RecordBatch, weights: pa.DataType, location: Location) -> Iterator[Tensor]:
    """Describe the rows of a table; its weights are needed only for rows without a shape.

    Rows that quantizing refuses, for what they lack, are left out.
    """
    raw = is_binary(weights)
    for row, (name, shape) in enumerate(layers(pa.Table.from_batches([batch]))):
        dtype = batch["dtype"][row].as_py() if raw else _LIST_DTYPES[element_type(weights)]
        if name is None or dtype is None or any(n is None or n < 0 for n in shape):
            continue
        if raw:
            _check_dtype(dtype, location)
        size = -(-product((*shape, BITS.get(dtype, 8))) // 8)
        yield Tensor(name, dtype, tuple(shape), 0, size)


class TableModel(Model):
    """A table of layers in a file of Parquet or Arrow."""

    tensors = None

    def __init__(self, location: Location, is_parquet: bool) -> None:
        super().__init__(location)
        self._is_parquet = is_parquet
        read = parquet_schema if is_parquet else ipc_schema
        self._stored = read(location)
        self.schema = schema_of_lists(self._stored)

    @cached_property
    def all_tensors(self) -> Sequence[Tensor]:
        return in_a_row(self._described())

    def obstacle(self, tensor: Tensor) -> str | None:
        return super().obstacle(tensor) if is_binary(self.schema.field("weights").type) else None

    def check_names(self, need_names: bool) -> None:
        rows = ((self.location, batch) for batch in self._columns({NAMES}))
        check_names(rows, need_names)

    def without(self, names: Collection[str]) -> Model:
        left = copy(self)
        left.all_tensors = [tensor for tensor in self.all_tensors if tensor.name not in names]
        return left

    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        read = parquet_batches if self._is_parquet else ipc_batches
        return islice(read(self.location, self._stored, batch_bytes, only_floats), skip, None)

    def _described(self) -> list[Tensor]:
        """Read names, shapes and dtypes; weights only if there are rows without a shape."""
        weights = self.schema.field("weights").type
        found: list[Tensor] = []
        if "shape" in self.schema.names:
            for batch in self._columns({"layer_name", "shape", "dtype"}):
                if batch["shape"].null_count:
                    found.clear()
                    break
                found += _tensors(batch, weights, self.location)
            else:
                return found
        for batch in self._columns({"layer_name", "shape", "dtype", "weights"}):
            found += _tensors(batch, weights, self.location)
        return found

    def _columns(self, names: Collection[str]) -> Iterator[pa.RecordBatch]:
        """Read some of the columns."""
        schema = pa.schema([field for field in self._stored if field.name in names])
        if self._is_parquet:
            return parquet_batches(self.location, schema, BATCH_BYTES, only_floats=False)
        only = "weights" not in names
        return table_files.ipc_batches(
            self.location, schema, BATCH_BYTES, lambda batch: [tensors_as_lists(batch)], only
        )
