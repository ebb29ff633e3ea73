"""How many bits layers may take together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from pyarrowquant._core import arguments
from pyarrowquant.errors import UsageError

_MOST_BITS = 1 << 62  # no model has so many


def too_small_error(floor: bool) -> type[ValueError]:
    """Return the class of errors of budgets; which layers pass a floor is up to the weights."""
    return ValueError if floor else UsageError


class Budget(Protocol):
    """A bound on the bits of all layers together."""

    def bits(self, weights: int) -> int:
        """Return the bits that layers of so many weights may take; negative for none."""

    def of_layer(self, bits: int) -> int:
        """Return what a layer of so many bits takes of it."""

    def too_small(self, weights: int, least: int, floor: bool) -> ValueError:
        """Make the error that the smallest candidates take more.

        Parameters
        ----------
        weights : int
        least : int
            What they take.
        floor : bool
            Whether they are those that pass a quality_floor.
        """


@dataclass(frozen=True)
class BitsPerWeight:
    """So many bits a weight.

    Raises
    ------
    ArgumentTypeError
        The value is no number.
    UsageError
        It is no finite number above 0.
    """

    value: float

    def __post_init__(self) -> None:
        # JSON takes Python's floats, and not NumPy's
        object.__setattr__(self, "value", arguments.bits_per_weight(self.value))

    def bits(self, weights: int) -> int:
        # a part of a bit more, so that what was computed by division is reached again
        bits = self.value * weights * (1 + 1e-12)
        return math.floor(min(bits, _MOST_BITS))

    def of_layer(self, bits: int) -> int:
        return bits

    def too_small(self, weights: int, least: int, floor: bool) -> ValueError:
        needed = math.ceil(least / max(weights, 1) * 1e4) / 1e4
        return too_small_error(floor)(
            f"Invalid bits_per_weight: {self.value:.15g}. The smallest candidates"
            f"{' that pass the quality_floor' if floor else ''} take {needed}"
        )
