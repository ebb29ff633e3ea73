"""Sums of the squares of what parameters are multiplied with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass
class Squares:
    """What is known of a parameter's inputs.

    Attributes
    ----------
    sums : array
        float64, a row for each of its matrices and a column for each input.
    counts : array
        int64, how many inputs each matrix had.
    """

    sums: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls, matrices: int, columns: int) -> Squares:
        return cls(np.zeros((matrices, columns)), np.zeros(matrices, np.int64))
