"""Sums of the squares of what parameters are multiplied with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyarrowquant._core.quoting import quoted


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


def check_finite(found: Mapping[str, Squares], model: object) -> None:
    """Raise where inputs of a model were no finite numbers."""
    for parameter, squares in found.items():
        if not np.isfinite(squares.sums).all():
            raise ValueError(
                f"'{model}': inputs of {quoted(parameter)} are NaN or Inf. The model does not "
                "compute with float32 what it was made for, or its weights are damaged"
            )
