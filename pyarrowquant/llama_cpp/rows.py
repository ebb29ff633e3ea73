"""What becomes of the rows of a tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pyarrowquant.reading.numbers import Array


@dataclass(frozen=True)
class Change:
    """What is done to an array.

    Attributes
    ----------
    shape : tuple of int
        What comes out.
    apply : callable
        Gets an array of the source's shape.
    computes : bool
        Whether it computes with numbers, which then are float32, and does not only move them.
    """

    shape: tuple[int, ...]
    apply: Callable[[Array], Array]
    computes: bool = False


def paired(shape: tuple[int, ...], heads: int) -> Change:
    """Put halves of heads, which rotary embeddings turn together, beside each other.

    Llama's own files have the two rows of a pair next to each other, as llama.cpp wants them;
    Hugging Face's have all the first ones before all the second ones.
    """

    def apply(rows: Array) -> Array:
        halves = rows.reshape(heads, 2, -1, *shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(shape)

    return Change(shape, apply)


def plus_one(shape: tuple[int, ...]) -> Change:
    """Add 1 to the weights of a norm, which Gemma's code does when it runs."""
    return Change(shape, lambda weights: weights + np.float32(1), computes=True)


def part(shape: tuple[int, ...], axis: int, start: int, stop: int) -> Change:
    """Take some of the rows, of each matrix if there are several."""
    index = (*[slice(None)] * (axis % len(shape)), slice(start, stop))
    left = list(shape)
    left[axis] = stop - start
    return Change(tuple(left), lambda rows: np.ascontiguousarray(rows[index]))
