"""What rows of other encodings than "int" have, checked against what the encoding fixes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pyarrowquant._core.encodings import ENCODINGS, Encoding
from pyarrowquant._core.group_sizes import (
    BLOCK,
    BLOCK_SIZE,
    SHARED,
    TENSOR,
    GroupSize,
    blocks_in,
    in_row,
)
from pyarrowquant._core.levels import E4M3, LEVELS

Floats = npt.NDArray[np.float32]
Bools = Any  # an array of them, or one


def _none() -> Floats:
    return np.empty(0, np.float32)


_CODES_AT_A_TIME = 1 << 20
_LEAST_E8M0 = 2.0**-127
_ROUNDING = 2.0**-16  # of a minimum, which is a quotient times its divisor


@dataclass(frozen=True)
class Decoding:
    """What a row has beside its codes, scales and zero-points.

    Attributes
    ----------
    encoding : str
    levels : ndarray
        What its codes stand for; empty where that is themselves.
    super_scales, super_minimums : ndarray
        Empty where there are none.
    """

    encoding: str
    levels: Floats = field(default_factory=_none)
    super_scales: Floats = field(default_factory=_none)
    super_minimums: Floats = field(default_factory=_none)


def said_group_size(encoding: str, group_size: int, has_super_scales: bool) -> GroupSize:
    """Return what shares a scale, of which rows of tables have what it is within a row.

    Super-scales of encodings that have none are the scales that rows share.
    """
    known = ENCODINGS.get(encoding)
    if known is not None and known.shares and has_super_scales:
        for shared in (TENSOR, BLOCK):
            if in_row(shared) == group_size:
                return shared
    return group_size


def decoding_problem(
    decoding: Decoding, bits: int, group_size: GroupSize, rows: int, columns: int
) -> str | None:
    """Say what an encoding has otherwise than a row says, but for its scales."""
    name = decoding.encoding
    encoding = ENCODINGS.get(name)
    if encoding is None:
        return f"encoding '{name}' is unknown. It may be of a later version of pyarrowquant"
    if bits != encoding.bit_width:
        return f"bit_width is {bits}, encoding '{name}' has {encoding.bit_width}"
    if "group_size" not in encoding.free and group_size != encoding.group_size:
        return f"group_size is {group_size}, encoding '{name}' has {encoding.group_size}"
    wanted_levels = LEVELS.get(name, _none())
    if len(decoding.levels) != len(wanted_levels):
        return (
            f"levels has {len(decoding.levels)} values, encoding '{name}' has {len(wanted_levels)}"
        )
    supers = encoding.super_count(rows, columns, group_size)
    for column, values, wanted in (
        ("super_scales", decoding.super_scales, supers),
        ("super_minimums", decoding.super_minimums, supers if encoding.has_minimums else 0),
    ):
        if len(values) != wanted:
            return f"{column} has {len(values)} values, the layer needs {wanted}"
    if wanted_levels.size and (other := decoding.levels != wanted_levels).any():
        code = int(np.argmax(other))
        return (
            f"level {code} is {decoding.levels[code]:g}, encoding '{name}' has "
            f"{wanted_levels[code]:g}"
        )
    if not np.isfinite(decoding.super_scales).all():
        return "super_scales has NaN or Inf"
    return None if np.isfinite(decoding.super_minimums).all() else "super_minimums has NaN or Inf"


def codes_problem(encoding: str, codes: npt.NDArray[np.uint8]) -> str | None:
    """Say which code is NaN where engines read it: E4M3 has two, of which tables have levels."""
    if LEVELS.get(encoding) is not E4M3:
        return None
    rows = max(1, _CODES_AT_A_TIME // max(1, codes.shape[1]))
    for first in range(0, len(codes), rows):
        is_nan = codes[first : first + rows] & 0x7F == 0x7F
        if is_nan.any():
            row, column = (int(place) for place in np.argwhere(is_nan)[0])
            row += first
            return (
                f"code {codes[row, column]} in row {row} and column {column} of the matrix is NaN "
                f"in E4M3, and encoding '{encoding}' stores no such"
            )
    return None


def scales_problem(
    decoding: Decoding,
    group_size: GroupSize,
    columns: int,
    scales: Floats,
    zero_points: Floats,
) -> str | None:
    """Say which scale or minimum, of a matrix of finite ones, the encoding does not store."""
    encoding = ENCODINGS[decoding.encoding]
    if not scales.size:
        return None
    supers = minimums = _none()
    if encoding.factors is not None:
        places = encoding.super_of(columns)
        supers = decoding.super_scales.reshape(len(scales), -1)[:, places]
        if encoding.has_minimums:
            minimums = decoding.super_minimums.reshape(len(scales), -1)[:, places]
    with np.errstate(all="ignore"):
        good = _stored_scales(encoding, decoding, scales, supers)
        if group_size in SHARED:
            good = scales == _spread(decoding.super_scales, group_size, len(scales), columns)
        if encoding.has_minimums:
            good_points = _stored_minimums(encoding, scales * zero_points, minimums)
        else:
            one = 0 if encoding.has_levels else 2 ** (encoding.bit_width - 1)
            good_points = zero_points == one
    for what, fine, values in (("scale", good, scales), ("zero-point", good_points, zero_points)):
        if not fine.all():
            group = int(np.argmin(fine.ravel()))
            return (
                f"the {what} of group {group} is {values.ravel()[group]:g}, which encoding "
                f"'{decoding.encoding}' does not store here"
            )
    return None


def _spread(shared: Floats, group_size: GroupSize, rows: int, columns: int) -> Floats:
    """Put scales that rows share into each of them."""
    if group_size == TENSOR:
        return shared.reshape(1, 1)
    blocks: Floats = shared.reshape(-1, blocks_in(columns))
    return blocks[np.arange(rows) // BLOCK_SIZE]


def _stored_scales(encoding: Encoding, decoding: Decoding, scales: Floats, supers: Floats) -> Bools:
    if encoding.factors is not None:
        return _whole(scales / supers, supers, *encoding.factors) | (supers == 0) & (scales == 0)
    if encoding.layer_bits:
        return is_e4m3(scales / decoding.super_scales[0])
    if encoding.scale_dtype == "float16":
        return scales.astype(np.float16) == scales
    if encoding.factor_bits is None:
        return np.ones_like(scales, np.bool_)
    return (scales >= _LEAST_E8M0) & (np.frexp(scales)[0] == 0.5)


def _stored_minimums(encoding: Encoding, minimums: Floats, supers: Floats) -> Bools:
    assert encoding.factors is not None
    factors = minimums / supers
    near = np.rint(factors)
    whole = (factors >= 0) & (abs(factors - near) <= _ROUNDING)
    whole &= _whole(near, supers, 0, encoding.factors[1])
    return whole | (supers == 0) & (minimums == 0)


def _whole(factors: Floats, supers: Floats, least: int, most: int) -> Bools:
    inside = (factors >= least) & (factors <= most)
    return (supers != 0) & inside & (factors == np.rint(factors))


def is_e4m3(factors: Floats) -> Bools:
    """Whether numbers are of E4M3, and not negative."""
    exponent = np.frexp(factors)[1]
    unit = np.exp2(np.maximum(exponent - 4, -9))  # of the last of its bits
    return (factors >= 0) & (factors <= 448) & (np.rint(factors / unit) == factors / unit)
