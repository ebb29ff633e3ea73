"""Parts of quantized layers in the order that engines want them, made by Go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pyarrowquant._core import arguments, library
from pyarrowquant._core.bounds import SCALE_BITS
from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.encodings import ENCODINGS, INTEGER
from pyarrowquant._core.group_sizes import groups_in_row
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.results import Floats, Packed

_BYTES_A_PIECE = 1 << 21  # stays in a cache until it is written


@dataclass(frozen=True)
class Part:
    """Go's layout.Options but for the threads, and the bytes that a row takes."""

    part: str
    row_bytes: int
    width: int = 0
    dtype: str = "float32"
    symmetric: bool = False
    encoding: str = INTEGER
    layer_scale: float = 0.0


def codes(width: int) -> Part:
    """Rows of codes with zeros at their ends, up to so many bytes."""
    return Part("codes", width, width=width)


def signed_codes(layer: Coded) -> Part:
    """Codes of 8 bits less their symmetric zero-point, as signed bytes."""
    return Part("signed codes", layer.columns)


def exponents(layer: Coded) -> Part:
    """Scales that are powers of two, as E8M0."""
    return Part("exponents", groups_of(layer))


def small_scales(layer: Coded, layer_scale: float) -> Part:
    """Scales as multiples of one of the layer, in E4M3."""
    return Part("small scales", groups_of(layer), layer_scale=layer_scale)


def scales(layer: Coded, dtype: str) -> Part:
    return _rounded("scales", layer, dtype)


def zero_points(layer: Coded, dtype: str) -> Part:
    return _rounded("zero_points", layer, dtype)


def biases(layer: Coded, dtype: str) -> Part:
    """Round what codes of zero decode to, -zero_point * scale in float32."""
    return _rounded("biases", layer, dtype)


def packed_zero_points(layer: Coded) -> Part:
    """Whole zero-points, each row a little-endian bit stream."""
    return Part("packed zero_points", -(-groups_of(layer) * layer.bits // 8))


def blocks(layer: Coded, symmetric: bool) -> Part:
    """Blocks of ggml."""
    header = 2 if symmetric else 4
    return Part("blocks", groups_of(layer) * (header + 4 * layer.bits), symmetric=symmetric)


def encoded_blocks(layer: Coded, block: int, block_bytes: int) -> Part:
    """Blocks of ggml for an encoding that it has, of so many columns."""
    row_bytes = layer.columns // block * block_bytes
    return Part("encoded blocks", row_bytes, encoding=layer.encoding)


def pieces(layer: Packed, part: Part) -> Iterator[Bytes]:
    """Give some rows of a part at a time, as bytes; each piece is used before the next comes."""
    rows = len(layer.codes)
    step = max(1, min(rows, _BYTES_A_PIECE // max(part.row_bytes, 1)))
    memory = np.empty(step * part.row_bytes, np.uint8)
    for start in range(0, rows, step):
        span = slice(start, start + step)
        out = memory[: (min(start + step, rows) - start) * part.row_bytes]
        _lay_out(layer, span, part, out)
        yield out


def whole(layer: Packed, part: Part) -> Bytes:
    """Return a part as bytes."""
    out = np.empty(len(layer.codes) * part.row_bytes, np.uint8)
    _lay_out(layer, slice(None), part, out)
    return out


def zero_points_packed_down(layer: Packed) -> Bytes:
    """Whole zero-points as words of 32 bits: a column is a bit stream down the rows."""
    rows, groups = layer.zero_points.shape
    out = np.empty(4 * -(-rows * layer.bits // 32) * groups, np.uint8)
    _lay_out(layer, slice(None), Part("zero_points packed down", 0), out)
    return out


def groups_of(layer: Coded) -> int:
    """Return how many groups a row has."""
    return groups_in_row(layer.group_size, layer.columns)


def _rounded(part: str, layer: Coded, dtype: str) -> Part:
    return Part(part, groups_of(layer) * SCALE_BITS[dtype] // 8, dtype=dtype)


def _lay_out(layer: Packed, rows: slice, part: Part, out: Bytes) -> None:
    options: dict[str, Any] = {**asdict(part), "threads": arguments.thread_count(None)}
    del options["row_bytes"]
    library.lay_out(
        layer.bits,
        np.ascontiguousarray(layer.codes[rows]),
        np.ascontiguousarray(layer.scales[rows]),
        np.ascontiguousarray(layer.zero_points[rows]),
        _by_rows(layer, layer.decoding.super_scales, rows),
        _by_rows(layer, layer.decoding.super_minimums, rows),
        library.encode(options),
        out,
    )


def _by_rows(layer: Packed, values: Floats, rows: slice) -> Floats | None:
    """Return what rows have of super-scales; None where the layer has none for each row."""
    encoding = ENCODINGS.get(layer.encoding)
    if encoding is None or encoding.factors is None or values.size == 0:
        return None
    return np.ascontiguousarray(values.reshape(len(layer.codes), -1)[rows])
