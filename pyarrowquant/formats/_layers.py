"""Rows of results and of unquantized layers, as views of their Arrow buffers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant import _arguments, _lib
from pyarrowquant._binary import bytes_at, is_binary
from pyarrowquant._source import INPUT_COLUMNS, RESULT_COLUMNS, Source, check_data
from pyarrowquant.rule import BIT_WIDTHS, columns_of

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

KEPT_DTYPES = {"F32": 4, "F16": 2, "BF16": 2}
_FLOAT_NAMES = {pa.float32(): "F32", pa.float16(): "F16"}
_CODES_A_PIECE = 1 << 20
_INLINE = 12  # bytes that a view has in itself


@dataclass(frozen=True)
class Packed:
    """A quantized layer; codes have a row of bytes for each row of the matrix."""

    name: str
    codes: Bytes
    scales: Floats
    zero_points: Floats
    shape: tuple[int, ...]
    bits: int
    group_size: int

    @property
    def columns(self) -> int:
        return columns_of(self.shape)

    @property
    def group(self) -> int:
        """Columns that share a scale: no more than the row has."""
        return self.columns if self.group_size == -1 else min(self.group_size, self.columns)

    @cached_property
    def zero_point(self) -> str:
        """Kind of the zero-points, found from their values."""
        z = self.zero_points
        if (z == 2 ** (self.bits - 1)).all():
            return "symmetric"
        whole = (z >= 0) & (z < 2**self.bits) & (z == np.rint(z))
        return "integer" if whole.all() else "float"

    @property
    def biases(self) -> Floats:
        """What codes of zero decode to, -zero_point * scale; infinite beyond float32."""
        with np.errstate(over="ignore"):
            return -self.zero_points * self.scales

    def matrix_problem(self) -> str | None:
        """Say what keeps the layer from being a matrix, which all formats want."""
        if len(self.shape) != 2:
            return f"shape {list(self.shape)} is not that of a matrix"
        if 0 in self.shape:
            return f"shape {list(self.shape)} has no weights"
        return None

    def unpacked(self) -> Iterator[tuple[slice, Bytes]]:
        """Codes of some rows at a time, one a byte; for columns that are a multiple of 8."""
        step = max(1, _CODES_A_PIECE // self.columns)
        for start in range(0, len(self.codes), step):
            rows = slice(start, start + step)
            eights = np.zeros((self.codes[rows].size // self.bits, 8), np.uint8)
            eights[:, : self.bits] = self.codes[rows].reshape(-1, self.bits)
            stream = eights.view("<u8")[:, 0]  # eight codes in a number
            codes = np.empty_like(eights)
            for i in range(8):
                codes[:, i] = stream >> np.uint64(i * self.bits) & np.uint64(2**self.bits - 1)
            yield rows, codes.reshape(-1, self.columns)


@dataclass(frozen=True)
class Kept:
    """A layer that goes into the file as it is."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Bytes


class Results:
    """Rows of a result, checked before they are used.

    Parameters
    ----------
    data : pyarrow.Table or any Arrow producer
    format_name : str
        How errors name the format.
    problem : callable
        Says what keeps a layer out of the format, or None.
    holds : str
        What the format can hold, and what to do.
    """

    def __init__(
        self,
        data: object,
        format_name: str,
        problem: Callable[[Packed], str | None],
        holds: str,
    ) -> None:
        self._source = Source(data, RESULT_COLUMNS)
        self._format_name = format_name
        self._problem = problem
        self._holds = holds
        _check_schema(self._source.schema)
        if self._source.is_read:
            self._refuse(layer for _, layers in batches_of(self._source) for layer in layers)

    def __iter__(self) -> Iterator[Packed]:
        for _, layers in self.batches():
            yield from layers

    @property
    def source(self) -> Source:
        return self._source

    def batches(self) -> Iterator[tuple[pa.RecordBatch, list[Packed]]]:
        """Give one batch after the other, and its rows."""
        for batch, layers in batches_of(self._source):
            if not self._source.is_read:
                self._refuse(layers)
            yield batch, layers

    def _refuse(self, layers: Iterable[Packed]) -> None:
        refused = [(layer.name, self._problem(layer)) for layer in layers]
        lines = [
            f"{self._format_name} cannot hold layer '{name}': {problem}"
            for name, problem in refused
            if problem
        ]
        if lines:
            raise ValueError("\n".join([*lines, self._holds]))


def batches_of(source: Source) -> Iterator[tuple[pa.RecordBatch, list[Packed]]]:
    """Give the batches of a result, and their rows."""
    row = 0
    for batch in source.batches():
        check_data(batch, full=True)
        yield batch, [_packed(batch, i, row + i) for i in range(batch.num_rows)]
        row += batch.num_rows


class KeptLayers:
    """Rows of a table of weights that go into a file untouched; None has none.

    Parameters
    ----------
    data : pyarrow.Table, any Arrow producer, or None
    problem : callable
        Says what keeps a layer out of the format, or None.
    others : mapping
        Bytes of an element of the dtypes that the format has beside the floats of layers.
    """

    def __init__(
        self,
        data: object,
        problem: Callable[[Kept], str | None] = lambda _: None,
        others: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._problem = problem
        self._dtypes = {**KEPT_DTYPES, **others}
        self._source = None if data is None else Source(data, INPUT_COLUMNS)
        if self._source is not None:
            options = {**_arguments.quantize_options(), "type_names": self._source.type_names}
            _lib.validate(self._source.schema, _lib.encode(options))
            if self._source.is_read:
                for _ in self:  # what is wrong is said before anything is written
                    pass

    def __iter__(self) -> Iterator[Kept]:
        row = 0
        for batch in self._source.batches() if self._source is not None else ():
            check_data(batch, full=True)
            for i in range(batch.num_rows):
                layer = _kept(batch, i, row + i, self._dtypes)
                if problem := self._problem(layer):
                    raise ValueError(f"Layer '{layer.name}' cannot be kept: {problem}")
                yield layer
            row += batch.num_rows


class Names:
    """Names of the tensors of a file, each of which is to come once."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, name: str) -> str:
        if name in self._names:
            raise ValueError(f"Two tensors of the file would be named '{name}'")
        self._names.add(name)
        return name


def as_float16(values: Floats) -> npt.NDArray[np.float16]:
    """Round to float16; what is beyond becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def rounded(values: Floats, dtype: str) -> npt.NDArray[Any]:
    """Values in a dtype, ties to even; bfloat16 as its bits in uint16."""
    if dtype == "float16":
        return as_float16(values)
    if dtype == "float32":
        return values
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)


def widened(values: npt.NDArray[Any]) -> Floats:
    """What `rounded` gave, as float32."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def is_of(values: Floats, dtype: str) -> bool:
    """Whether all values are of a dtype exactly."""
    return bool((widened(rounded(values, dtype)) == values).all())


def _check_schema(schema: pa.Schema) -> None:
    types = pa.types

    def a_list_of(*elements: pa.DataType) -> Callable[[pa.DataType], bool]:
        return lambda t: hasattr(t, "value_field") and t.value_type in elements

    def text(t: pa.DataType) -> bool:
        t = t.value_type if types.is_dictionary(t) else t
        return t in (pa.string(), pa.large_string(), pa.string_view())

    expected: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
        "layer_name": ("string", text),
        "quantized_data": ("binary", is_binary),
        "scales": ("list<float32>", a_list_of(pa.float32())),
        "zero_points": ("list<float32>", a_list_of(pa.float32())),
        "shape": ("list<int64>", a_list_of(pa.int64(), pa.int32())),
        "bit_width": ("uint8", types.is_integer),
        "group_size": ("int32", types.is_integer),
    }
    for name, (type_name, fits) in expected.items():
        if schema.names.count(name) != 1:
            many = "is there more than once" if name in schema.names else "is missing"
            raise ValueError(
                f"Column '{name}' {many}. Expected a result of quantize_batch_arrow() or "
                "quantize_stream()"
            )
        if not fits(schema.field(name).type):
            raise ValueError(
                f"Column '{name}' has type {schema.field(name).type}; expected {type_name}"
            )


def _value(batch: pa.RecordBatch, column: str, i: int, row: int) -> Any:
    value = batch.column(column)[i]
    if not value.is_valid:
        raise ValueError(f"Row {row}: {column} is null")
    return value


def _numbers(batch: pa.RecordBatch, column: str, i: int, row: int) -> npt.NDArray[Any]:
    values = _value(batch, column, i, row).values
    if values.null_count:
        raise ValueError(f"Row {row}: {column} has a null")
    array: npt.NDArray[Any] = values.to_numpy()
    return array


def _bytes(batch: pa.RecordBatch, column: str, i: int, row: int) -> Bytes:
    try:
        value = bytes_at(batch.column(column), i)
    except ValueError as error:
        raise ValueError(f"Row {row}: {column} is corrupt: {error}") from None
    if value is None:
        raise ValueError(f"Row {row}: {column} is null")
    return value


def _packed(batch: pa.RecordBatch, i: int, row: int) -> Packed:
    name = str(_value(batch, "layer_name", i, row).as_py())
    data = _bytes(batch, "quantized_data", i, row)
    scales = _numbers(batch, "scales", i, row)
    zero_points = _numbers(batch, "zero_points", i, row)
    shape = tuple(int(n) for n in _numbers(batch, "shape", i, row))
    bits = int(_value(batch, "bit_width", i, row).as_py())
    group_size = int(_value(batch, "group_size", i, row).as_py())

    def corrupt(why: str) -> ValueError:
        return ValueError(f"Layer '{name}' (row {row}) is corrupt: {why}")

    if bits not in BIT_WIDTHS:
        raise corrupt(f"bit_width {bits}")
    if group_size != -1 and (group_size < 8 or group_size % 8):
        raise corrupt(f"group_size {group_size}")
    if any(n < 0 for n in shape):
        raise corrupt(f"shape {list(shape)}")
    rows = shape[0] if len(shape) > 1 else 1
    columns = columns_of(shape)
    width = -(-columns * bits // 8)
    groups = 0 if columns == 0 else 1 if group_size == -1 else -(-columns // group_size)
    if data.size != rows * width:
        raise corrupt(f"quantized_data has {data.size} bytes, expected {rows * width}")
    for label, values in (("scales", scales), ("zero_points", zero_points)):
        if len(values) != rows * groups:
            raise corrupt(f"{label} has {len(values)} values, expected {rows * groups}")
        if not np.isfinite(values).all():
            raise corrupt(f"{label} has NaN or Inf")
    if not scales.all():
        raise corrupt("a scale is 0")
    return Packed(
        name,
        data.reshape(rows, width),
        scales.reshape(rows, groups),
        zero_points.reshape(rows, groups),
        shape,
        bits,
        group_size,
    )


def _kept(batch: pa.RecordBatch, i: int, row: int, dtypes: Mapping[str, int]) -> Kept:
    name = str(_value(batch, "layer_name", i, row).as_py())
    if is_binary(batch.column("weights").type):
        dtype = str(_value(batch, "dtype", i, row).as_py())
        data = _bytes(batch, "weights", i, row)
    else:
        values = _value(batch, "weights", i, row).values
        if values.null_count:
            raise ValueError(f"Layer '{name}': weights has a null")
        dtype = _FLOAT_NAMES.get(values.type, str(values.type))
        array: npt.NDArray[Any] = values.to_numpy()
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        data = array.view(np.uint8)
    if dtype not in dtypes:
        also = ", or raw bytes that the format has a type for" if len(dtypes) > 3 else ""
        raise ValueError(
            f"Layer '{name}': kept layers are float32, float16 or bfloat16 (F32, F16 or BF16)"
            f"{also}, not {dtype.replace('double', 'float64')}"
        )
    count, rest = divmod(len(data), dtypes[dtype])
    if rest:
        raise ValueError(f"Layer '{name}': {len(data)} bytes are no whole number of {dtype}")
    shape: tuple[int, ...] = (count,)
    if "shape" in batch.schema.names and batch.column("shape")[i].is_valid:
        shape = tuple(int(n) for n in _numbers(batch, "shape", i, row))
    if any(n < 0 for n in shape) or math.prod(shape) != count:
        raise ValueError(
            f"Layer '{name}': Shape mismatch: shape {list(shape)} has {math.prod(shape)} elements, "
            f"weights has {count}"
        )
    return Kept(name, dtype, shape, data)
