"""Rows of results and of unquantized layers, as views of their Arrow buffers."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core.binary import is_binary
from pyarrowquant._core.bounds import listed
from pyarrowquant._core.cells import Bytes, numbers, raw, value
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant._core.results import Floats, Packed, batches_of, check_schema
from pyarrowquant._core.rows import ITEM_BYTES, check_weights_schema
from pyarrowquant._core.source import INPUT_COLUMNS, RESULT_COLUMNS, Source, check_data
from pyarrowquant.recipes.planned import PlannedLayout

INTEGER_ONLY = (INTEGER,)
NAMED = 3  # of the layers of a model that have the same to say
KEPT_DTYPES = ITEM_BYTES
AnyLayer = TypeVar("AnyLayer", bound=Coded)


@dataclass(frozen=True)
class _Normal:
    """Which float32 are normal numbers of a dtype: by their last bits, and by their size."""

    unused_bits: int
    least: float
    most: float


_NORMAL = {
    "float32": _Normal(0, 0.0, math.inf),
    "float16": _Normal(0x1FFF, 2.0**-14, 65504.0),
    "bfloat16": _Normal(0xFFFF, 2.0**-126, 3.38e38),
}
_FLOAT_NAMES = {pa.float32(): "F32", pa.float16(): "F16"}


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
    encodings : collection of str
        Those that the format can hold.
    is_checked : bool
        Whether the rows come from the engine itself, and so are no corrupt ones.
    """

    def __init__(
        self,
        data: object,
        format_name: str,
        problem: Callable[[Packed], str | None],
        holds: str,
        encodings: Collection[str] = INTEGER_ONLY,
        is_checked: bool = False,
    ) -> None:
        self._encodings = encodings
        self._is_checked = is_checked
        self._source = Source(data, RESULT_COLUMNS)
        self._format_name = format_name
        self._problem = problem
        self._holds = holds
        check_schema(self._source.schema)
        if self._source.is_read:
            batches = batches_of(self._source, is_checked)
            self._refuse(layer for _, layers in batches for layer in layers)
            self._is_checked = True

    def __iter__(self) -> Iterator[Packed]:
        for _, layers in self.batches():
            yield from layers

    @property
    def source(self) -> Source:
        return self._source

    def batches(self) -> Iterator[tuple[pa.RecordBatch, list[Packed]]]:
        """Give one batch after the other, and its rows."""
        for batch, layers in batches_of(self._source, self._is_checked):
            if not self._source.is_read:
                self._refuse(layers)
            yield batch, layers

    def _refuse(self, layers: Iterable[Packed]) -> None:
        refuse(layers, self._problem, self._format_name, self._holds, self._encodings)


def refuse(
    layers: Iterable[AnyLayer],
    problem: Callable[[AnyLayer], str | None],
    format_name: str,
    holds: str,
    encodings: Collection[str] = INTEGER_ONLY,
    most: int | None = None,
) -> None:
    """Raise where a format cannot hold layers, in a line for each reason.

    Parameters
    ----------
    layers : iterable of Coded
    problem : callable
    format_name : str
    holds : str
    encodings : collection of str
        As of `Results`.
    most : int, optional
        How many layers are named for a reason; by default all.
    """

    def unheld(layer: AnyLayer) -> str | None:
        if layer.encoding not in encodings:
            return f"encoding {layer.encoding!r} must be one of {listed(encodings)}"
        return problem(layer)

    found = [(layer.name, unheld(layer)) for layer in layers]
    names: dict[str, list[str]] = {}
    for name, text in found:
        if text:
            names.setdefault(text, []).append(quoted(name))
    lines = [
        f"{format_name} cannot hold layer{'' if len(each) == 1 else 's'} "
        f"{first_few(each, most or len(each))}: {text}"
        for text, each in names.items()
    ]
    if lines:
        raise ValueError("\n".join([*lines, holds]))


def planned_scales_fit(layer: PlannedLayout, dtype: str) -> bool:
    """Whether scales will be of a dtype exactly."""
    return layer.scale_dtype == dtype or dtype == "float32"


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
            check_weights_schema(self._source)
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
                    raise ValueError(f"Layer {quoted(layer.name)} cannot be kept: {problem}")
                yield layer
            row += batch.num_rows


class Names:
    """Names of the tensors of a file, each of which is to come once."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, name: str) -> str:
        if name in self._names:
            raise ValueError(f"Two tensors of the file would be named {quoted(name)}")
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
    return _are_normal(values, dtype) or bool((widened(rounded(values, dtype)) == values).all())


def _are_normal(values: Floats, dtype: str) -> bool:
    """Whether all values are normal numbers of a dtype: quick, and most scales are."""
    normal = _NORMAL[dtype]
    unused = int(np.bitwise_or.reduce(values.view(np.uint32), axis=None)) & normal.unused_bits
    sizes = np.abs(values)
    least, most = sizes.min(initial=np.inf), sizes.max(initial=0)
    return unused == 0 and bool(normal.least <= least and most <= normal.most)


def _kept(batch: pa.RecordBatch, i: int, row: int, dtypes: Mapping[str, int]) -> Kept:
    name = str(value(batch, "layer_name", i, row).as_py())
    if is_binary(batch.column("weights").type):
        dtype = str(value(batch, "dtype", i, row).as_py())
        data = raw(batch, "weights", i, row)
    else:
        values = value(batch, "weights", i, row).values
        if values.null_count:
            raise ValueError(f"Layer {quoted(name)}: weights has a null")
        dtype = _FLOAT_NAMES.get(values.type, str(values.type))
        array: npt.NDArray[Any] = values.to_numpy()
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        data = array.view(np.uint8)
    if dtype not in dtypes:
        also = ", or raw bytes that the format has a type for" if len(dtypes) > 3 else ""
        raise ValueError(
            f"Layer {quoted(name)}: kept layers are float32, float16 or bfloat16 (F32, F16 or BF16)"
            f"{also}, not {dtype.replace('double', 'float64')}"
        )
    count, rest = divmod(len(data), dtypes[dtype])
    if rest:
        raise ValueError(f"Layer {quoted(name)}: {len(data)} bytes are no whole number of {dtype}")
    shape: tuple[int, ...] = (count,)
    if "shape" in batch.schema.names and batch.column("shape")[i].is_valid:
        shape = tuple(int(n) for n in numbers(batch, "shape", i, row))
    if any(n < 0 for n in shape) or math.prod(shape) != count:
        raise ValueError(
            f"Layer {quoted(name)}: Shape mismatch: shape {list(shape)} has {math.prod(shape)} "
            f"elements, weights has {count}"
        )
    return Kept(name, dtype, shape, data)
