"""Anything that speaks Arrow, as a schema and batches of the columns that count."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, starmap
from operator import attrgetter
from typing import Any

import pyarrow as pa

from pyarrowquant._core.nested import (
    is_list,
    is_row_major,
    is_tensor,
    schema_of_lists,
    tensors_as_lists,
)
from pyarrowquant._core.version import check_version
from pyarrowquant.errors import ArgumentTypeError

INPUT_COLUMNS = frozenset({"layer_name", "weights", "shape", "dtype", "importance"})
# Of results in which a layer has another encoding than "int".
ENCODED_COLUMNS = frozenset({"encoding", "levels", "super_scales", "super_minimums"})
RESULT_COLUMNS = ENCODED_COLUMNS | frozenset(
    {
        "layer_name",
        "quantized_data",
        "scales",
        "zero_points",
        "shape",
        "bit_width",
        "group_size",
    }
)
COMPARED_COLUMNS = (INPUT_COLUMNS | RESULT_COLUMNS) - {"importance"}

_AS_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def weights_bytes(data: pa.Table | pa.RecordBatch) -> int:
    """Bytes of the weights, with the little that Arrow adds."""
    return column_bytes([data.column(i) for i in data.schema.get_all_field_indices("weights")])


def column_bytes(columns: Sequence[pa.Array | pa.ChunkedArray]) -> int:
    """Bytes of columns, of slices only theirs where PyArrow knows."""
    try:
        return sum(int(column.nbytes) for column in columns)
    except pa.ArrowTypeError:  # views, in older versions of PyArrow
        return sum(int(column.get_total_buffer_size()) for column in columns)


class Source:
    """Arrow data of any producer.

    Reading takes place in the caller's thread, since producers may run Python code.

    Parameters
    ----------
    data : pyarrow.Table, RecordBatch or RecordBatchReader, or an object with
        ``__arrow_c_stream__`` or ``__arrow_c_array__``, which is called once; a pyarrow Dataset,
        Scanner or ParquetFile; or an iterable of record batches, of which the first one is taken.
    columns : frozenset of str
        The columns to read; others are ignored.
    """

    def __init__(self, data: object, columns: frozenset[str]) -> None:
        self._data = _open(data, columns)
        schema = self._data.schema
        names = schema.names
        if "quantized_data" in names and "quantized_data" in columns:
            check_version(schema)
        self._positions = [i for i, name in enumerate(names) if name in columns]
        self._types = {names[i]: schema.field(i).type for i in self._positions}
        for name, dtype in self._types.items():
            _check_type(name, dtype)
        self._has_tensors = any(map(is_tensor, self._types.values()))
        self._is_whole = len(self._positions) == len(names)

    @cached_property
    def schema(self) -> pa.Schema:
        """Schema of the columns that are read; tensors are lists of lists."""
        schema = pa.schema([self._data.schema.field(i) for i in self._positions])
        return schema_of_lists(schema)

    @property
    def type_names(self) -> dict[str, str]:
        """How errors name the columns' types: as PyArrow does, and float64 both ways."""
        return {
            name: str(dtype).replace("double", "double (float64)")
            for name, dtype in self._types.items()
        }

    @property
    def is_read(self) -> bool:
        """Whether all data is there already; else it comes by reading, once."""
        return not isinstance(self._data, pa.RecordBatchReader)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read one batch that has rows after the other."""
        data = self.read_all().to_batches() if self.is_read else map(self._select, self._data)
        # which, unlike a generator, holds none while the next one is read
        return filter(attrgetter("num_rows"), data)

    def read_all(self) -> pa.Table:
        """Read all that is left; nothing is copied."""
        if self.is_read:
            return self._select(self._data)
        return pa.Table.from_batches(map(self._select, self._data), self.schema)

    def _select(self, data: Any) -> Any:
        selected = data if self._is_whole else data.select(self._positions)
        check_data(selected)
        return tensors_as_lists(selected) if self._has_tensors else selected


def check_data(data: pa.Table | pa.RecordBatch, full: bool = False) -> None:
    """Refuse data that PyArrow or Go would crash on; producers may have made anything.

    Parameters
    ----------
    data : pyarrow.Table or RecordBatch
    full : bool
        Check all offsets and views, for those who read with PyArrow; Go checks those of
        each layer itself. Numbers are not looked at either way.
    """
    for name, column in zip(data.schema.names, data.columns, strict=True):
        try:
            # Buffers too small for their offsets: only here are their sizes known.
            (_without_text(column) if full else column).validate(full=full)
        except pa.ArrowException as error:
            raise ValueError(f"Column '{name}' is corrupt: {error}") from error
        for chunk in [column] if isinstance(column, pa.Array) else column.chunks:
            if problem := _unchecked(chunk):
                raise ValueError(f"Column '{name}' is corrupt: {problem}")
        if len(column) != data.num_rows:
            raise ValueError(
                f"Column '{name}' is corrupt: it has {len(column)} rows, the table {data.num_rows}"
            )


def _unchecked(array: pa.Array) -> str | None:
    """Say what is wrong with the offset of an array, which PyArrow does not check."""
    if isinstance(array, pa.ExtensionArray):
        return _unchecked(array.storage)
    if array.offset < 0:
        return f"its offset {array.offset} is negative"
    if pa.types.is_fixed_size_list(array.type):
        count, end = len(array.values), (array.offset + len(array)) * array.type.list_size
        if end > count:
            return f"its lists end at {end}, its values at {count}"
    return _unchecked(array.values) if is_list(array.type) else None


def _check_type(name: str, dtype: pa.DataType) -> None:
    """Refuse a column whose type Go would not see, or PyArrow not read."""
    if is_tensor(dtype) and not is_row_major(dtype):
        raise ValueError(
            f"Column '{name}' has type {dtype}: its values are not in the order of its dimensions. "
            "Make it of arrays that are contiguous in C order"
        )
    if isinstance(dtype, pa.BaseExtensionType) and not is_tensor(dtype):
        raise ValueError(
            f"Column '{name}' has the extension type {dtype}, whose meaning "
            "would be lost. Use its storage, and a 'shape' column for the shape of tensors"
        )
    inner = dtype.storage_type if is_tensor(dtype) else dtype
    while is_list(inner):
        if pa.types.is_fixed_size_list(inner) and inner.list_size == 0:
            raise ValueError(
                f"Column '{name}' has type {dtype}, whose lists have no values. Use "
                f"list<{inner.value_type}>"
            )
        inner = inner.value_type


def _without_text(column: Any) -> Any:
    """Return texts as bytes: those that are no UTF-8 are an error of their layer alone."""
    raw = _AS_BYTES.get(column.type)
    if raw is None:
        return column
    if isinstance(column, pa.Array):
        return column.view(raw)
    return pa.chunked_array([chunk.view(raw) for chunk in column.chunks], raw)


def is_arrow(data: object) -> bool:
    """Whether an object speaks Arrow."""
    return isinstance(data, (pa.Table, pa.RecordBatch, pa.RecordBatchReader)) or any(
        hasattr(data, name) for name in ("__arrow_c_stream__", "__arrow_c_array__")
    )


def _open(data: object, columns: frozenset[str]) -> pa.Table | pa.RecordBatchReader:
    if isinstance(data, (pa.Table, pa.RecordBatchReader)):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    try:
        if hasattr(data, "__arrow_c_stream__"):
            return pa.RecordBatchReader.from_stream(data)
        if hasattr(data, "__arrow_c_array__"):
            return pa.Table.from_batches([pa.record_batch(data)])
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError) as error:
        raise ValueError(f"Expected an Arrow table, got {_kind(data)}: {error}") from error
    reader = _scanned(data, columns)
    if reader is not None:
        return reader
    if isinstance(data, (list, tuple, Iterator)):
        return _joined(iter(data), _kind(data))
    raise ArgumentTypeError(
        "Expected an Arrow table (a pyarrow Table, RecordBatch or RecordBatchReader, or an object "
        f"with __arrow_c_stream__ or __arrow_c_array__), got {_kind(data)}{_hint(data)}"
    )


def _scanned(data: Any, columns: frozenset[str]) -> pa.RecordBatchReader | None:
    """Open what PyArrow reads files with: a Dataset, a Scanner or a ParquetFile."""
    if type(data).__module__.partition(".")[0] != "pyarrow":
        return None
    if hasattr(data, "scanner"):
        wanted = [name for name in data.schema.names if name in columns]
        return data.scanner(columns=wanted).to_reader()
    if hasattr(data, "to_reader"):
        return data.to_reader()
    if hasattr(data, "iter_batches"):
        schema = pa.schema([field for field in data.schema_arrow if field.name in columns])
        batches = data.iter_batches(columns=schema.names)
        return pa.RecordBatchReader.from_batches(schema, batches)
    return None


def _joined(batches: Iterator[object], kind: str) -> pa.RecordBatchReader:
    """Return a reader of batches, the first of which says the schema."""

    def checked(position: int, batch: object) -> pa.RecordBatch:
        if isinstance(batch, pa.RecordBatch):
            return batch
        raise ArgumentTypeError(
            f"Expected an Arrow table, got {kind} that has {_kind(batch)} at index {position}; all "
            "must be a pyarrow RecordBatch"
        )

    first = next(batches, None)
    if first is None:
        raise ValueError(
            f"Expected an Arrow table, got {kind} without a RecordBatch, which would say the schema"
        )
    batch = checked(0, first)
    others = starmap(checked, enumerate(batches, 1))
    return pa.RecordBatchReader.from_batches(batch.schema, chain([batch], others))


def _hint(data: object) -> str:
    """Say which function is for what was given."""
    if isinstance(data, (str, os.PathLike)):
        return ". To read a file use read_weights(path)"
    if isinstance(data, Mapping) and any(isinstance(each, Mapping) for each in data.values()):
        return ". What quantize_batch() gave is decoded by dequantize_batch()"
    if isinstance(data, Mapping):
        return ". For a dictionary of arrays use quantize_batch() or numpy_to_arrow_table()"
    if hasattr(data, "collect"):
        return ". Call its collect() first"
    return ""


def _kind(data: object) -> str:
    return f"{type(data).__module__}.{type(data).__qualname__}"
