"""The bits that layers take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pyarrowquant._core.bounds import SCALE_BITS
from pyarrowquant._core.encodings import ENCODINGS
from pyarrowquant._core.group_sizes import groups_in_row
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.shapes import columns_of


def stored_bits(shape: Sequence[int], settings: Settings) -> int:
    """Return the bits that a layer takes: codes, scales and zero-points.

    Rows of codes are padded to bytes. Scales count 32 bits, or 16 with a scale_dtype of 16;
    zero-points the same if they are float, bit_width if integer, nothing if symmetric. Other
    encodings than "int" store what they store.
    """
    elements = math.prod(shape)
    if elements == 0:
        return 0
    rows = shape[0] if len(shape) > 1 else 1
    columns = elements // rows
    width, group_size = settings.bit_width, settings.group_size
    scale = SCALE_BITS[settings.scale_dtype]
    encoding = ENCODINGS.get(settings.encoding)
    if encoding is not None:
        return encoding.stored_bits(rows, columns, group_size, scale)
    groups = groups_in_row(group_size, columns)
    zero_point = {"integer": width, "float": scale, "symmetric": 0}[settings.zero_point]
    row_bits: int = -(-columns * width // 8) * 8 + groups * (scale + zero_point)
    return rows * row_bits


def table_bits(shape: Sequence[int], settings: Settings) -> int:
    """Return the bits of a row of a table, in which all but codes is float32."""
    encoding = ENCODINGS.get(settings.encoding)
    if encoding is None:
        as_stored = replace(settings, scale_dtype="float32", zero_point="float")
        return stored_bits(shape, as_stored)
    if 0 in shape:
        return 0
    columns = columns_of(shape)
    return encoding.table_bits(math.prod(shape) // columns, columns, settings.group_size)
