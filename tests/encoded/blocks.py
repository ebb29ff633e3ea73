"""Blocks of GGUF, made from rows of a table by the published layouts (ggml-common.h)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import reference

Array = npt.NDArray[Any]


class Parts(NamedTuple):
    """Codes by super-block, and the small integers that scales and minimums are made with."""

    codes: Array  # (blocks, columns)
    factors: Array  # (blocks, groups)
    minimum_factors: Array
    d: Array  # (blocks, 1) float16
    dmin: Array


def parts_of(result: pa.Table, columns: int) -> Parts:
    """Take the first row of a table apart; the layer's rows are whole super-blocks."""
    row = {name: result[name][0] for name in result.column_names}
    shape, bits = row["shape"].as_py(), row["bit_width"].as_py()
    codes = reference.unpack(row["quantized_data"].as_py(), *shape, bits).reshape(-1, columns)

    def floats(name: str) -> Array:
        return row[name].values.to_numpy().reshape(len(codes), -1)

    scales = floats("scales")
    supers = [
        floats(name) if row[name].is_valid else np.ones((len(codes), 1), np.float32)
        for name in ("super_scales", "super_minimums")
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.nan_to_num(np.rint(scales / supers[0])).astype(int)
        minimums = np.zeros_like(factors)
        if row["super_minimums"].is_valid:
            minimums = np.nan_to_num(np.rint(floats("zero_points") * scales / supers[1])).astype(
                int
            )
    return Parts(codes, factors, minimums, *(each.astype(np.float16) for each in supers))


def raw(values: Array) -> Array:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


def planes(codes: Array, bits: int, run: int) -> Array:
    """Bytes whose parts of `bits` bits are codes `run` apart, the first in the lowest bits."""
    count = 8 // bits
    spread = codes.reshape(len(codes), -1, count, run).astype(np.uint8)
    shifts = (bits * np.arange(count, dtype=np.uint8))[:, None]
    packed: Array = np.bitwise_or.reduce(spread << shifts, axis=2).reshape(len(codes), -1)
    return packed


def six_bits(scales: Array, minimums: Array) -> Array:
    """The twelve bytes of eight scales and eight minimums of Q4_K and Q5_K."""
    low, high = slice(0, 4), slice(4, 8)
    scales, minimums = scales.astype(np.uint8), minimums.astype(np.uint8)
    return np.hstack(
        [
            scales[:, low] | (scales[:, high] >> 4 << 6),
            minimums[:, low] | (minimums[:, high] >> 4 << 6),
            (scales[:, high] & 15) | (minimums[:, high] & 15) << 4,
        ]
    )


def q2_k(p: Parts) -> Array:
    scales = (p.factors | p.minimum_factors << 4).astype(np.uint8)
    return np.hstack([scales, planes(p.codes, 2, 32), raw(p.d), raw(p.dmin)])


def q3_k(p: Parts) -> Array:
    six = (p.factors + 32).astype(np.uint8)
    low = planes(six & 15, 4, 8)
    high = planes(six >> 4, 2, 4)
    return np.hstack([planes(p.codes >> 2, 1, 32), planes(p.codes & 3, 2, 32), low, high, raw(p.d)])


def q4_k(p: Parts) -> Array:
    scales = six_bits(p.factors, p.minimum_factors)
    return np.hstack([raw(p.d), raw(p.dmin), scales, planes(p.codes, 4, 32)])


def q5_k(p: Parts) -> Array:
    scales = six_bits(p.factors, p.minimum_factors)
    high, low = planes(p.codes >> 4, 1, 32), planes(p.codes & 15, 4, 32)
    return np.hstack([raw(p.d), raw(p.dmin), scales, high, low])


def q6_k(p: Parts) -> Array:
    low = planes(p.codes & 15, 4, 64)
    return np.hstack([low, planes(p.codes >> 4, 2, 32), raw(p.factors.astype(np.int8)), raw(p.d)])


def iq4_xs(p: Parts) -> Array:
    six = (p.factors + 32).astype(np.uint16)
    shifts = 2 * np.arange(8, dtype=np.uint16)
    high = np.bitwise_or.reduce((six >> 4) << shifts, axis=1)
    low = planes(six & 15, 4, 1)
    return np.hstack([raw(p.d), raw(high[:, None]), low, planes(p.codes, 4, 16)])


BLOCKS: dict[str, tuple[int, Callable[[Parts], Array]]] = {
    "q2_k": (256, q2_k),
    "q3_k": (256, q3_k),
    "q4_k": (256, q4_k),
    "q5_k": (256, q5_k),
    "q6_k": (256, q6_k),
    "iq4_xs": (256, iq4_xs),
}


def alone(result: pa.Table, name: str) -> Array:
    """Blocks of encodings whose groups stand alone."""
    row = {column: result[column][0] for column in result.column_names}
    size = row["group_size"].as_py()
    shape = row["shape"].as_py()
    codes = reference.unpack(row["quantized_data"].as_py(), *shape, 4).reshape(-1, size)
    scales = row["scales"].values.to_numpy()[:, None]
    if name == "iq4_nl":
        return np.hstack([raw(scales.astype(np.float16)), planes(codes, 4, 16)])
    if name == "mxfp4":
        exponents = (np.frexp(scales)[1] - 1 + 127).astype(np.uint8)
        return np.hstack([exponents, planes(codes, 4, 16)])
    factors = scales / row["super_scales"].values.to_numpy()
    e4m3 = factors.astype(ml_dtypes.float8_e4m3fn)
    assert (e4m3.astype(np.float32) == factors).all()
    return np.hstack([raw(e4m3).reshape(-1, 4), planes(codes, 4, 8).reshape(-1, 32)])
