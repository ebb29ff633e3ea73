"""Rows of results, as views of their Arrow buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core.binary import is_binary
from pyarrowquant._core.bounds import BIT_WIDTHS
from pyarrowquant._core.cells import Bytes, numbers, raw, value
from pyarrowquant._core.encoded_rows import (
    Decoding,
    codes_problem,
    decoding_problem,
    said_group_size,
    scales_problem,
)
from pyarrowquant._core.encodings import ENCODINGS, INTEGER
from pyarrowquant._core.group_sizes import groups_in_row
from pyarrowquant._core.layout import Layout
from pyarrowquant._core.nested import is_list
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.shapes import columns_of
from pyarrowquant._core.source import ENCODED_COLUMNS, Source, check_data

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Packed(Layout):
    """A quantized layer; codes have a row of bytes for each row of the matrix.

    Scales and zero-points decode every encoding: w = (level - zero_point) * scale.
    """

    codes: Bytes
    scales: Floats
    zero_points: Floats
    decoding: Decoding
    has_zero_points: bool  # else they are not stored, being all 0

    @property
    def encoding(self) -> str:
        return self.decoding.encoding

    @property
    def scale_bytes(self) -> int:
        """Of all that a table has of scales, and of levels."""
        more = self.decoding.super_scales.size + self.decoding.levels.size
        return 4 * (self.scales.size + more)

    @property
    def zero_point_bytes(self) -> int:
        stored = self.zero_points.size if self.has_zero_points else 0
        return 4 * (stored + self.decoding.super_minimums.size)

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


def batches_of(
    source: Source, is_checked: bool = False
) -> Iterator[tuple[pa.RecordBatch, list[Packed]]]:
    """Give the batches of a result, and their rows.

    Of what was checked before, or comes from the engine itself, scales and zero-points are not
    looked at again.
    """
    row = 0
    for batch in source.batches():
        check_data(batch, full=not is_checked)
        yield batch, [_packed(batch, i, row + i, is_checked) for i in range(batch.num_rows)]
        row += batch.num_rows


def check_schema(schema: pa.Schema) -> None:
    types = pa.types

    def a_list_of(*elements: pa.DataType) -> Callable[[pa.DataType], bool]:
        return lambda t: hasattr(t, "value_field") and t.value_type in elements

    def text(t: pa.DataType) -> bool:
        t = t.value_type if types.is_dictionary(t) else t
        return t in (pa.string(), pa.large_string(), pa.string_view())

    floats = a_list_of(pa.float32())
    expected: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
        "layer_name": ("string", text),
        "quantized_data": ("binary", is_binary),
        "scales": ("list<float32>", floats),
        "zero_points": ("list<float32>", floats),
        "shape": ("list<int64>", lambda t: is_list(t) and types.is_integer(t.value_type)),
        "bit_width": ("uint8", types.is_integer),
        "group_size": ("int32", types.is_integer),
    }
    if "encoding" in schema.names:
        expected["encoding"] = ("string", lambda t: types.is_null(t) or text(t))
    for name in ENCODED_COLUMNS - {"encoding"}:
        if name in schema.names:
            expected[name] = ("list<float32>", lambda t: types.is_null(t) or floats(t))
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


def _packed(batch: pa.RecordBatch, i: int, row: int, is_checked: bool) -> Packed:
    name = str(value(batch, "layer_name", i, row).as_py())
    data = raw(batch, "quantized_data", i, row)
    scales = numbers(batch, "scales", i, row)
    decoding = _decoding(batch, i, row)
    encoded = decoding.encoding != INTEGER
    has_zero_points = not encoded or batch.column("zero_points")[i].is_valid
    zero_points = (
        numbers(batch, "zero_points", i, row) if has_zero_points else np.zeros_like(scales)
    )
    shape = tuple(int(n) for n in numbers(batch, "shape", i, row))
    bits = int(value(batch, "bit_width", i, row).as_py())
    group_size = int(value(batch, "group_size", i, row).as_py())

    def corrupt(why: str) -> ValueError:
        return ValueError(f"Layer {quoted(name)} (row {row}) is corrupt: {why}")

    if bits not in BIT_WIDTHS:
        raise corrupt(f"bit_width {bits}")
    if group_size != -1 and (group_size < 8 or group_size % 8):
        raise corrupt(f"group_size {group_size}")
    if any(n < 0 for n in shape):
        raise corrupt(f"shape {list(shape)}")
    rows = shape[0] if len(shape) > 1 else 1
    columns = columns_of(shape)
    width = -(-columns * bits // 8)
    groups = groups_in_row(group_size, columns) if columns else 0
    if data.size != rows * width:
        raise corrupt(f"quantized_data has {data.size} bytes, expected {rows * width}")
    said = said_group_size(decoding.encoding, group_size, decoding.super_scales.size > 0)
    if encoded and (problem := decoding_problem(decoding, bits, said, rows, columns)):
        raise corrupt(problem)
    if not has_zero_points and not ENCODINGS[decoding.encoding].has_levels:
        raise corrupt(f"zero_points is null, encoding '{decoding.encoding}' needs them")
    for label, values in (("scales", scales), ("zero_points", zero_points)):
        if len(values) != rows * groups:
            raise corrupt(f"{label} has {len(values)} values, expected {rows * groups}")
        if not is_checked and not np.isfinite(values).all():
            raise corrupt(f"{label} has NaN or Inf")
    scales, zero_points = scales.reshape(rows, groups), zero_points.reshape(rows, groups)
    if not is_checked and not encoded and not scales.all():
        raise corrupt("a scale is 0")
    if not is_checked and encoded:
        problem = scales_problem(decoding, said, columns, scales, zero_points)
        problem = problem or codes_problem(decoding.encoding, data.reshape(rows, width))
        if problem:
            raise corrupt(problem)
    return Packed(
        name,
        shape,
        bits,
        said,
        data.reshape(rows, width),
        scales,
        zero_points,
        decoding,
        has_zero_points,
    )


def _decoding(batch: pa.RecordBatch, i: int, row: int) -> Decoding:
    """Read what a row says of its encoding; none, and null, is "int"."""
    said = batch.column("encoding")[i].as_py() if "encoding" in batch.schema.names else None
    if said is None or said == INTEGER:
        return Decoding(INTEGER)
    return Decoding(
        str(said),
        **{
            name: numbers(batch, name, i, row)
            for name in ("levels", "super_scales", "super_minimums")
            if name in batch.schema.names and batch.column(name)[i].is_valid
        },
    )
