"""Oracles of the methods that search: the optimum by enumeration, hqq as published, group errors.

All of it is numpy in float64, and shares nothing with the package.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from reference import Array, group_starts, matrix_shape, spread

FLT_MAX = float(np.finfo(np.float32).max)
ROUNDING = 2.0**-23  # of a group's largest weight: what float32 loses in (q - z) * s


def group_errors(
    weights: Array, decoded: Array, group_size: int, importance: Array | None = None
) -> Array:
    """The root of the mean squared error of each group, weighted by the importance of columns."""
    rows, columns = matrix_shape(weights.shape)
    starts = group_starts(columns, group_size)
    factors = np.ones(columns) if importance is None else importance.astype(np.float64)
    difference = weights.astype(np.float64) - decoded.astype(np.float64)
    squares = difference.reshape(rows, columns) ** 2 * factors
    sums = np.add.reduceat(squares, starts, axis=1)
    totals = np.add.reduceat(factors, starts)
    roots: Array = np.sqrt(sums / np.where(totals > 0, totals, 1))
    return roots


def group_rounding(weights: Array, group_size: int) -> Array:
    """What rounding to float32 may hide of each group's error, in the units of group_errors."""
    rows, columns = matrix_shape(weights.shape)
    largest = abs(weights.reshape(rows, columns).astype(np.float64))
    starts = group_starts(columns, group_size)
    bounds: Array = ROUNDING * np.maximum.reduceat(largest, starts, axis=1) + 2.0**-149
    return bounds


def tail_weights(weights: Array, group_size: int, is_even: bool = True) -> Array:
    """What "mse" weighs the columns of a matrix by if nothing is known of its inputs.

    The square of each column's mean square over its squared mean magnitude, with evenly spaced
    codes times the square of its mean magnitude over 1.5 times that of the group if that is above
    1, as a part of the group's largest. Four rows each are added up as float32.
    """
    rows, columns = weights.shape
    sizes = np.zeros((-(-rows // 4) * 4, columns), np.float32)
    sizes[:rows] = abs(weights.astype(np.float32))
    magnitudes, squares = np.zeros(columns), np.zeros(columns)
    with np.errstate(over="ignore", invalid="ignore"):
        for w, x, y, z in sizes.reshape(-1, 4, columns):
            magnitudes += w + x + y + z
            squares += w * w + x * x + y * y + z * z
        ratios = rows * squares / (magnitudes * magnitudes)
    ratios = np.where((ratios > 1) & (ratios <= FLT_MAX), ratios, 1)
    tails: Array = (ratios * ratios).astype(np.float32)
    starts = group_starts(columns, group_size)
    for start, end in itertools.pairwise([*starts, columns] if is_even else []):
        with np.errstate(invalid="ignore"):
            mean = np.cumsum(magnitudes[start:end])[-1] / (end - start)  # one after the other
            above = np.fmax(magnitudes[start:end] / (1.5 * mean), 1)
        tails[start:end] = (tails[start:end] * (above * above)).astype(np.float32)
    largest = spread(np.maximum.reduceat(tails, starts), 1, columns, group_size)[0]
    parts: Array = np.maximum(tails / largest, np.float32(1 / 256))
    return parts


def families(rows: int, columns: int, seed: int) -> Iterator[tuple[str, Array]]:
    """Weights of every kind, as float32 matrices. Rows of one family differ."""
    rng = np.random.default_rng(seed)
    shape = rows, columns
    normal = rng.standard_normal(shape)
    kinds = {
        "gaussian": normal,
        "gaussian of 0.02": normal * 0.02,
        "Student-t of 2": rng.standard_t(2, shape),
        "Student-t of 3, small": rng.standard_t(3, shape) * 0.01,
        "uniform": rng.random(shape) - 0.3,
        "lognormal": np.exp(3 * normal),
        "positive": abs(normal) + 0.5,
        "negative": -abs(normal) - 0.5,
        "sparse": np.where(rng.random(shape) < 0.9, 0, normal),
        "whole numbers": np.rint(normal * 3),
        "ramp": np.tile(np.arange(columns) / columns, (rows, 1)),
        "constant": np.repeat(normal[:, :1], columns, axis=1),
        "zeros": np.zeros(shape),
        "two values": np.where(rng.random(shape) < 0.5, 0.3, -0.1),
        "two near values": np.where(rng.random(shape) < 0.5, 0.3, 0.31),
        "outlier": np.where(np.arange(columns) % 64 == 7, 9, normal * 0.01),
        "large outlier": np.where(np.arange(columns) % 64 == 7, -9000, normal * 0.01),
        "subnormal": normal * 1e-40,
        "partly subnormal": normal * 10.0 ** rng.uniform(-45, -36, shape),
        "huge": normal * 5e37,
        "some largest": np.where(rng.random(shape) < 0.2, FLT_MAX, normal),
        "all magnitudes": normal * 10.0 ** rng.uniform(-30, 30, shape),
        "1000 +- 0.001": 1000 + normal * 0.001,
    }
    for digits in range(1, 8):
        kinds[f"1 +- 10^-{digits}"] = 1 + normal * 10.0**-digits
        kinds[f"-1 +- 10^-{digits}"] = rng.random(shape) * 10.0**-digits - 1
    for name, values in kinds.items():
        yield name, np.clip(values, -FLT_MAX, FLT_MAX).astype(np.float32)


def partitions(count: int, bit_width: int) -> Array:
    """All ways to give sorted weights codes that do not fall: how many are below each code."""
    codes = 2**bit_width
    bars = np.array(list(itertools.combinations(range(count + codes - 1), codes - 1)))
    below: Array = bars - np.arange(codes - 1)
    return below


def least_error(weights: Array, bit_width: int, zero_point: str, below: Array) -> float:
    """The least squared error that any scale and zero-point gives a group.

    The nearest of evenly spaced levels never falls as the weight rises. So some partition is the
    optimum's, and for given codes the best scale and zero-point follow in closed form.
    """
    if zero_point == "symmetric":  # the scale may have either sign
        signs, zeros = (1, -1), np.array([2 ** (bit_width - 1)])
    else:
        signs, zeros = (1,), np.arange(2**bit_width)
    count = len(weights)
    above = count - below  # how many have code k+1 or more
    steps = np.arange(1, 2**bit_width)
    code = above.sum(axis=1)
    code_code = above @ (2 * steps - 1)
    best = np.inf
    for sign in signs:
        w = np.sort(weights.astype(np.float64) * sign)
        sums = np.append(0, np.cumsum(w))
        weight, squares = sums[-1], float(w @ w)
        weight_code = (weight - sums[below]).sum(axis=1)
        if zero_point == "float":
            spread_code = code_code - code**2 / count
            covariance = weight_code - code * weight / count
            explained = np.maximum(covariance, 0) ** 2 / np.where(spread_code > 0, spread_code, 1)
            best = min(best, float(squares - weight**2 / count - explained.max()))
            continue
        for zero in zeros:
            step_step = code_code - 2 * zero * code + zero**2 * count
            weight_step = np.maximum(weight_code - zero * weight, 0)
            explained = weight_step**2 / np.where(step_step > 0, step_step, 1)
            best = min(best, float(squares - explained.max()))
    return max(best, 0.0)


def published_hqq(weights: Array, bit_width: int, group_size: int) -> Array:
    """Decoded weights of half-quadratic quantization (Badri and Shaji, 2023).

    The l_p norm of the errors, p = 0.7, is lowered in turns: over the errors that may stay
    (a generalized soft threshold) and over the zero-point (a mean). The scale stays as it is.
    """
    norm, beta, kappa, rounds = 0.7, 10.0, 1.01, 20
    rows, columns = matrix_shape(weights.shape)
    starts = group_starts(columns, group_size)
    counts = np.diff(np.append(starts, columns))
    w = weights.reshape(rows, columns).astype(np.float64)
    lo, hi = np.minimum.reduceat(w, starts, axis=1), np.maximum.reduceat(w, starts, axis=1)
    largest = 2**bit_width - 1

    def wide(values: Array) -> Array:
        return spread(values, rows, columns, group_size)

    step = (hi - lo) / largest
    zero = -lo / step

    def codes_of(zero: Array) -> Array:
        codes: Array = np.clip(np.rint(w / wide(step) + wide(zero)), 0, largest)
        return codes

    least = np.inf
    for _ in range(rounds):
        codes = codes_of(zero)
        error = w - (codes - wide(zero)) * wide(step)
        size = abs(error)
        with np.errstate(divide="ignore"):
            kept = np.sign(error) * np.maximum(size - size ** (norm - 1) / beta, 0)
        target = codes - (w - kept) / wide(step)
        zero = np.add.reduceat(target, starts, axis=1) / counts
        beta *= kappa
        if not size.mean() < least:
            break
        least = size.mean()
    decoded: Array = (codes_of(zero) - wide(zero)) * wide(step)
    return decoded.reshape(weights.shape)
