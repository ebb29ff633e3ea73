"""Scales as codes of 8 bits with scales of their own, as bitsandbytes has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.results import Floats, Packed

NESTED_BLOCK = 256  # scales that share one
_TWO_ZEROS = 0x77  # codes of NF4


@dataclass(frozen=True)
class DoubleScales:
    """Scales of a layer: level * scale of the block + offset.

    Attributes
    ----------
    codes : array of uint8
    scales : array of float32
        Of blocks.
    offset : float
        A float32.
    """

    codes: Bytes
    scales: Floats
    offset: float

    @classmethod
    def of(cls, layer: Packed) -> DoubleScales:
        """Find the nearest codes of the scales of a layer of NF4."""
        scales = layer.scales.reshape(-1).astype(np.float64)
        counted = scales[~_is_zero(layer)]
        offset = np.float32(counted.mean() if counted.size else 0)
        blocks = -(-scales.size // NESTED_BLOCK)
        differences = np.zeros(blocks * NESTED_BLOCK)
        np.subtract(scales, offset, out=differences[: scales.size])
        differences[: scales.size][_is_zero(layer)] = 0
        by_block = differences.reshape(blocks, NESTED_BLOCK)
        largest = np.abs(by_block).max(axis=1).astype(np.float32)
        divisors = np.where(largest == 0, np.float32(1), largest).astype(np.float64)
        codes = np.searchsorted(_BOUNDS, by_block / divisors[:, None]).astype(np.uint8)
        return cls(codes.reshape(-1)[: scales.size], largest, float(offset))


def _is_zero(layer: Packed) -> npt.NDArray[np.bool_]:
    """Whether all weights of a group are 0, and its scale, which is 1, says nothing."""
    is_one: npt.NDArray[np.bool_] = layer.scales.reshape(-1) == 1
    codes = layer.codes.reshape(is_one.size, -1)[is_one]
    is_one[is_one] = (codes == _TWO_ZEROS).all(axis=1)
    return is_one


def _levels() -> Floats:
    """Return the levels of bitsandbytes: of 2**i steps from 0.1 to 1, times 10**(i - 6)."""
    found: list[npt.NDArray[np.float32]] = []
    for i in range(7):
        count = 2**i
        step, number = float(np.float32(0.9) / np.float32(count)), np.arange(count + 1)
        low, high = float(np.float32(0.1)) + step * number, 1 - step * (count - number)
        edges = np.where(number <= count // 2, low, high).astype(np.float32)
        middles = (edges[:-1] + edges[1:]) / np.float32(2)
        found.append(np.float32(10.0 ** (i - 6)) * middles)
    positive = np.concatenate(found)
    return np.sort(np.concatenate([-positive, positive, np.array([0, 1], np.float32)]))


NESTED_LEVELS = _levels()
_BOUNDS = (NESTED_LEVELS[:-1].astype(np.float64) + NESTED_LEVELS[1:]) / 2
