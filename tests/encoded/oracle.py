"""The oracle: method "rtn" of each encoding in numpy, in float32, one rounding a step.

It shares nothing with the package. What is published says how a group's scale follows from its
weights; the order of operations is the package's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import reference

Array = npt.NDArray[Any]
F = np.float32

IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]
E2M1 = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(F)
E4M3 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(F)
E4M3[[127, 255]] = 448, -448  # NaN, which no code is
LEVELS = {
    **dict.fromkeys(("iq4_nl", "iq4_xs"), np.array(IQ4, F)),
    "nf4": np.array(NF4, F),
    **dict.fromkeys(("mxfp4", "nvfp4"), E2M1),
    **dict.fromkeys(("mxfp8", "fp8"), E4M3),
}
BITS = {"q2_k": 2, "q3_k": 3, "q5_k": 5, "q6_k": 6, "mxfp8": 8, "fp8": 8}  # of others 4
GROUPS = {"q4_k": 32, "q5_k": 32, "iq4_nl": 32, "iq4_xs": 32, "nf4": 64, "mxfp4": 32, "mxfp8": 32}
MINIMUMS = {"q2_k": 15, "q4_k": 63, "q5_k": 63}  # the largest factor
FACTORS = {"q3_k": (-32, 31), "q6_k": (-128, 127), "iq4_xs": (-32, 31)}


class Encoded(NamedTuple):
    """A layer: codes, and float32 values for each group, and for each super-block of a row."""

    codes: Array
    scales: Array
    zero_points: Array
    super_scales: Array
    super_minimums: Array


class OutOfRange(ValueError):  # noqa: N818 - a question, not an error
    """A scale is beyond what is stored."""


def encode(weights: Array, name: str, group_size: int = 0, dtype: str = "float32") -> Encoded:
    """Code the rows of a layer of float32; the group size is for fp8 alone."""
    rows, columns = reference.matrix_shape(weights.shape)
    matrix = weights.reshape(rows, columns)
    size = group_size or GROUPS.get(name, -1 if name == "fp8" else 16)
    size = max(columns, 1) if size == -1 else size
    step = 256 if name in MINIMUMS or name in FACTORS else size
    layer_scale = scale_of_layer(matrix) if name == "nvfp4" else F(0)
    parts = []
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        for row in matrix:
            for first in range(0, columns, step):
                part = row[first : first + step]
                groups = [part[i : i + size] for i in range(0, len(part), size)]
                parts.append(_super_block(groups, name, layer_scale, dtype))
    codes, scales, zero_points, supers, minimums = zip(*parts, strict=True) if parts else [[]] * 5
    per_row = name in MINIMUMS or name in FACTORS
    return Encoded(
        np.concatenate(codes or [np.empty(0, np.uint8)]).reshape(rows, columns),
        np.concatenate(scales or [np.empty(0, F)]),
        np.concatenate(zero_points or [np.empty(0, F)]),
        np.array([layer_scale] if name == "nvfp4" else supers if per_row else [], F),
        np.array(minimums if name in MINIMUMS else [], F),
    )


def areas(rows: int, columns: int, shared: str) -> list[tuple[slice, slice]]:
    """Rows and columns that share a scale: of the tensor, or of blocks of 128 by 128."""
    step = 128 if shared == "block" else max(rows, columns, 1)
    return [
        (slice(row, row + step), slice(column, column + step))
        for row in range(0, rows, step)
        for column in range(0, columns, step)
    ]


def encode_shared(weights: Array, shared: str, dtype: str = "float32") -> Encoded:
    """Code a layer of float32 as fp8 whose rows share scales."""
    rows, columns = reference.matrix_shape(weights.shape)
    matrix = weights.reshape(rows, columns)
    codes, supers = np.zeros((rows, columns), np.uint8), []
    per_row = -(-columns // 128) if shared == "block" else min(columns, 1)
    scales = np.zeros((rows, per_row), F)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        for area in areas(rows, columns, shared):
            part = matrix[area]
            found, (scale,), *_ = _super_block([part.ravel()], "fp8", F(0), dtype)
            codes[area] = found.reshape(part.shape)
            scales[area[0], area[1].start // 128] = scale
            supers.append(scale)
    if shared == "tensor" and not supers:
        supers = [F(1)]
    zeros = np.zeros(scales.size, F)
    return Encoded(codes, scales.ravel(), zeros, np.array(supers, F), np.empty(0, F))


def scale_of_layer(matrix: Array) -> F:
    """The least power of two with which the largest weight is within E2M1 times E4M3."""
    largest = float(np.abs(matrix).max(initial=0))
    if largest == 0:
        return F(1)
    exponent = int(np.ceil(np.log2(largest / (6 * 448))))
    while 2.0**exponent >= 2 * largest / (6 * 448) or 2.0**exponent < largest / (6 * 448):
        exponent += 1 if 2.0**exponent < largest / (6 * 448) else -1
    return F(2.0 ** max(exponent, -126))


def _super_block(groups: list[Array], name: str, layer_scale: F, dtype: str) -> tuple[Any, ...]:
    largest = max(float(np.abs(group).max()) for group in groups)
    exponent = max(int(np.frexp(largest)[1]) - 1 if largest else -126, -126)
    normal, back = F(2.0**-exponent), F(2.0**exponent)
    groups = [group * normal for group in groups]
    if name in MINIMUMS:
        scales, minimums, supers = _with_minimums(groups, name, normal, back)
    elif name in FACTORS:
        scales, supers = _with_factors(groups, name, normal, back)
        minimums = np.zeros_like(scales)
    else:
        scales = np.array([_alone(groups[0], name, normal, back, layer_scale, dtype)], F)
        minimums, supers = np.zeros_like(scales), (0, 0)
    zeros = {"q3_k": 4, "q6_k": 32}.get(name, 0) + np.zeros_like(scales)
    if name in MINIMUMS:
        zeros = np.where(scales == 0, F(0), minimums / scales)
    codes = [
        _codes(group, scale, minimum, name)
        for group, scale, minimum in zip(groups, scales, minimums, strict=True)
    ]
    return np.concatenate(codes), scales * back, zeros, *supers


def _end(group: Array) -> F:
    """The weight of largest magnitude, the negative one of two."""
    return F(group.max() if group.max() > -group.min() else group.min())


def _super(value: F, back: F) -> F:
    """A super-scale as float16; subnormal ones but 0 are rounded up."""
    wanted = F(value * back)
    rounded = F(np.float16(wanted))
    if not np.isfinite(rounded):
        raise OutOfRange
    if rounded != 0 and abs(rounded) < 2**-14 and abs(rounded) < abs(wanted):
        rounded += np.copysign(F(2**-24), wanted)
    return rounded


def _factor(value: F, unit: F, least: int, most: int) -> F:
    return F(0) if unit == 0 else np.rint(np.clip(F(value / unit), F(least), F(most)))


def _with_minimums(groups: list[Array], name: str, normal: F, back: F) -> tuple[Any, ...]:
    most, top = MINIMUMS[name], F(2 ** BITS.get(name, 4) - 1)
    lows = [F(min(group.min(), F(0))) for group in groups]
    highs = [
        F(0) if group.max() == low else F(group.max())
        for group, low in zip(groups, lows, strict=True)
    ]
    scales = [F((high - low) / top) for high, low in zip(highs, lows, strict=True)]
    largest = [max(scales), max([F(0), *(-low for low in lows)])]
    supers = [_super(F(each / F(most)), back) for each in largest]
    if supers[0] == 0 and supers[1] != 0:
        supers[0] = F(2**-24)
    units = [F(each * normal) for each in supers]
    return (
        np.array([units[0] * _factor(scale, units[0], 1, most) for scale in scales], F),
        np.array([units[1] * _factor(-low, units[1], 0, most) for low in lows], F),
        supers,
    )


def _with_factors(groups: list[Array], name: str, normal: F, back: F) -> tuple[Any, ...]:
    least, most = FACTORS[name]
    bottom = F({"q3_k": -4, "q6_k": -32, "iq4_xs": -127}[name])
    scales = [F(_end(group) / bottom) for group in groups]
    largest = max(scales, key=abs)
    supers = _super(F(largest / F(least)), back), F(0)
    unit = F(supers[0] * normal)
    return np.array([unit * _factor(scale, unit, least, most) for scale in scales], F), supers


def _alone(group: Array, name: str, normal: F, back: F, layer_scale: F, dtype: str) -> F:
    end = _end(group)
    if name == "iq4_nl":
        wanted = F(np.float16(F(F(end / F(-127)) * back)))
        if not np.isfinite(wanted):
            raise OutOfRange
        return F(wanted * normal)
    if name == "nvfp4":
        wanted = F(F(abs(end) / F(6)) * back)
        chosen = _e4m3(F(wanted / layer_scale))
        while not np.isfinite(F(F(chosen * layer_scale) * F(6))):  # near the largest float32
            chosen = _e4m3(F(chosen * F(0.93)))
        return F(chosen * layer_scale * normal)
    if name in ("mxfp4", "mxfp8"):
        if end == 0:
            return normal
        exponent = int(np.frexp(abs(end))[1]) - 1 - (2 if name == "mxfp4" else 8)
        shift = int(np.frexp(back)[1]) - 1
        return F(np.ldexp(1.0, int(np.clip(exponent + shift, -127, 127)) - shift))
    top = F(1 if name == "nf4" else 448)
    wanted = F(F(abs(end) / top) * back)
    rounded = F(wanted.astype(reference.SCALE_DTYPES[dtype]))
    if not np.isfinite(rounded):
        raise OutOfRange
    while not np.isfinite(F(rounded * top)):  # rounded up, near the largest float32
        rounded = _below(rounded, dtype)
    return F(rounded * normal) if rounded != 0 else normal


def _below(scale: F, dtype: str) -> F:
    stored = np.array(scale, reference.SCALE_DTYPES[dtype])
    bits = stored.view(np.uint32 if stored.itemsize == 4 else np.uint16)
    return F((bits - 1).view(stored.dtype))


def _e4m3(value: F) -> F:
    return F(np.clip(value, -448, 448).astype(ml_dtypes.float8_e4m3fn))


def _codes(group: Array, scale: F, minimum: F, name: str) -> Array:
    inverse = F(0) if scale == 0 else F(1) / scale
    numbers = group * inverse + F(minimum * inverse)
    return NEAREST[name](numbers)


def _even(low: int, high: int) -> Callable[[Array], Array]:
    return lambda y: (np.rint(np.clip(y, F(low), F(high))) - low).astype(np.uint8)


def _table(levels: list[float]) -> Callable[[Array], Array]:
    """Nearest in a table in ascending order, the lower one of two."""
    values = np.array(levels, F)
    between = (values[:-1] + values[1:]) / F(2)
    return lambda y: np.searchsorted(between, y, side="left").astype(np.uint8)


def _floats(dtype: Any, largest: int) -> Callable[[Array], Array]:
    return lambda y: np.clip(y, F(-largest), F(largest)).astype(dtype).view(np.uint8)


NEAREST: dict[str, Callable[[Array], Array]] = {
    "q2_k": _even(0, 3),
    "q3_k": _even(-4, 3),
    "q4_k": _even(0, 15),
    "q5_k": _even(0, 31),
    "q6_k": _even(-32, 31),
    **dict.fromkeys(("iq4_nl", "iq4_xs"), _table(IQ4)),
    "nf4": _table(NF4),
    **dict.fromkeys(("mxfp4", "nvfp4"), _floats(ml_dtypes.float4_e2m1fn, 6)),
    **dict.fromkeys(("mxfp8", "fp8"), _floats(ml_dtypes.float8_e4m3fn, 448)),
}
