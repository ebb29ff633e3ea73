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
    selects : bool
        Whether it only takes some of the rows, whatever these consist of.
    """

    shape: tuple[int, ...]
    apply: Callable[[Array], Array]
    computes: bool = False
    selects: bool = False


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


def part(shape: tuple[int, ...], axis: int, start: int, stop: int, step: int = 1) -> Change:
    """Take some of the rows, of each matrix if there are several."""
    index = (*[slice(None)] * axis, slice(start, stop, step))
    left = list(shape)
    left[axis] = len(range(start, stop, step))
    selects = axis < len(shape) - 1
    return Change(tuple(left), lambda rows: np.ascontiguousarray(rows[index]), selects=selects)


def turned(shape: tuple[int, ...]) -> Change:
    """Make rows of the columns, of each matrix if there are several."""
    return Change(
        (*shape[:-2], shape[-1], shape[-2]),
        lambda rows: np.ascontiguousarray(rows.swapaxes(-1, -2)),
    )


def after(first: Change, second: Change) -> Change:
    """Do one after the other, of which the second takes what comes out of the first."""
    return Change(second.shape, lambda rows: second.apply(first.apply(rows)))
