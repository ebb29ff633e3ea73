"""Sums over the layers of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from pyarrowquant import dequantize_batch_arrow
from pyarrowquant._core.binary import lengths
from pyarrowquant._core.underflow import Underflow


def _squares(row: pa.RecordBatch) -> float:
    """Sum of the squared weights that a row decodes to."""
    weights = dequantize_batch_arrow(pa.Table.from_batches([row]))["weights"][0].values
    return float(np.square(weights.to_numpy(), dtype=np.float64).sum())


class Totals:
    """Sums over the layers of a run."""

    def __init__(
        self,
        layers: int = 0,
        skipped: Sequence[str] = (),
        missed: Sequence[str] = (),
        weights: int = 0,
        stored_bytes: int = 0,
        squared_error: float = 0.0,
        norm: float = 0.0,
        underflows: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.layers = layers
        self.skipped = list(skipped)
        self.missed = list(missed)
        self.underflows = [Underflow(**each) for each in underflows]
        self.weights = weights
        self.stored_bytes = stored_bytes
        self._squared_error = squared_error
        self._norm = norm

    def to_dict(self) -> dict[str, Any]:
        """Return what makes the same totals again."""
        return {
            "layers": self.layers,
            "skipped": self.skipped,
            "missed": self.missed,
            "weights": self.weights,
            "stored_bytes": self.stored_bytes,
            "squared_error": self._squared_error,
            "norm": self._norm,
            "underflows": [asdict(each) for each in self.underflows],
        }

    def add(self, batch: pa.RecordBatch) -> None:
        columns = ("shape", "mse", "relative_error")
        for i, row in enumerate(batch.select(columns).to_pylist()):
            count = math.prod(row["shape"])
            error = row["mse"] * count
            self._squared_error += error
            if row["relative_error"] > 0:
                self._norm += error / row["relative_error"] ** 2
            else:
                self._norm += _squares(batch.slice(i, 1))  # exact: decoded as it was
            self.weights += count
            self.stored_bytes += 8 * len(batch["scales"][i])
        self.layers += batch.num_rows
        self.stored_bytes += sum(lengths(batch["quantized_data"]))

    @property
    def bits_per_weight(self) -> float:
        """Bits of what tables store: codes, scales and zero-points."""
        return 8 * self.stored_bytes / max(self.weights, 1)

    @property
    def relative_error(self) -> float:
        return math.sqrt(self._squared_error / self._norm) if self._norm else 0.0
