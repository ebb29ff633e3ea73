"""Sizes that follow from shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def product(sizes: Iterable[int]) -> int:
    """Multiply sizes, but no further than 2^64, since that takes ever longer; it is then above."""
    result = 1
    for size in sizes:
        result *= size
        if abs(result) >= 2**64:
            break
    return result


def columns_of(shape: Sequence[int]) -> int:
    """Columns of a layer as a matrix: all elements for fewer than two dimensions."""
    return product(shape if len(shape) < 2 else shape[1:])
