"""What a quantizer to measure is, whoever wrote it.

All of them take the same weights, float32 matrices by name, and are measured by the same code:
what they stored is counted, what they decode to is compared, then the call is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]

THREADS = 2


class UnavailableError(Exception):
    """The package is not installed, or does not do this (yet). The text is shown."""


@dataclass(frozen=True)
class Prepared:
    """A quantizer that holds its weights.

    Attributes
    ----------
    call : callable
        Quantizes; what is timed.
    decode : callable
        From a result of `call` to float32 weights, of the shapes given.
    stored_bits : callable
        From a result of `call` to the bits that it takes, metadata included, in the types in
        which its format stores them.
    range_bits : int
        Bits of a code that widen its range, and make no error smaller.
    """

    call: Callable[[], Any]
    decode: Callable[[Any], Any]
    stored_bits: Callable[[Any], int]
    range_bits: int = 0


@dataclass(frozen=True)
class Quantizer:
    """A method with its settings.

    Attributes
    ----------
    family : str
        Whose and which method: quantizers of a family differ in width and groups only.
    prepare : callable
        Raises UnavailableError (or ImportError) if it cannot run here.
    fraction : int
        Time it on one part in so many of the weights, and 5 times, for what takes very long.
    """

    family: str
    name: str
    prepare: Callable[[Weights], Prepared]
    fraction: int = 1


def each(prepare_one: Callable[[np.ndarray], Prepared]) -> Callable[[Weights], Prepared]:
    """Quantize matrix after matrix, for quantizers that know of single matrices only."""

    def prepare(weights: Weights) -> Prepared:
        layers = {name: prepare_one(array) for name, array in weights.items()}
        return Prepared(
            lambda: {name: layer.call() for name, layer in layers.items()},
            lambda result: {name: layers[name].decode(value) for name, value in result.items()},
            lambda result: sum(layers[name].stored_bits(value) for name, value in result.items()),
        )

    return prepare


def bits_of(*arrays: Any) -> int:
    """Bits of numpy, torch or MLX arrays."""
    return 8 * sum(array.nbytes for array in arrays)


def one_part_in(fraction: int, weights: Weights) -> Weights:
    """Whole matrices, the smallest first, or the first rows of the only one."""
    if fraction == 1:
        return weights
    if len(weights) == 1:
        return {name: array[: len(array) // fraction] for name, array in weights.items()}
    part: Weights = {}
    for name in sorted(weights, key=lambda name: (weights[name].size, name)):
        if count(part) * fraction >= count(weights):
            break
        part[name] = weights[name]
    return part


def relative_error(decoded: Weights, weights: Weights) -> float:
    """||w - w'|| / ||w|| over all weights."""
    error = norm = 0.0
    for name, array in weights.items():
        assert decoded[name].shape == array.shape, (name, decoded[name].shape)
        difference = (decoded[name] - array).ravel()
        error += float(np.dot(difference, difference))
        norm += float(np.dot(array.ravel(), array.ravel()))
    return float(np.sqrt(error / norm))


def count(weights: Weights) -> int:
    return sum(array.size for array in weights.values())


@dataclass(frozen=True)
class Checked:
    """One result that can be believed: bits a weight, relative error, decoded weights."""

    bits: float
    error: float
    decoded: Weights


def check(prepared: Prepared, weights: Weights) -> Checked:
    """Decode one result; AssertionError if its error cannot be that of so many bits.

    No code of b bits leaves Gaussian weights an error below 2^-b, and none of those measured
    here one above 4 times that. Trained weights vary between rows and have outliers, so that
    the bounds are wider. A quantizer that was called wrongly is beyond them.
    """
    result = prepared.call()
    bits = prepared.stored_bits(result) / count(weights)
    decoded = prepared.decode(result)
    error = relative_error(decoded, weights)
    assert 0.5 < error * 2 ** (bits - prepared.range_bits) < 8, (bits, error)
    return Checked(bits, error, decoded)
