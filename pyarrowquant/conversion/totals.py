"""Sums over the layers of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from pyarrowquant import dequantize_batch_arrow
from pyarrowquant._core.underflow import Underflow
from pyarrowquant.conversion.quantized import QuantizedLayer
from pyarrowquant.errors import LayerError

_PIECE = 1 << 20  # weights that are squared at a time: as float64 all take twice what they did


def _squares(row: pa.RecordBatch) -> float:
    """Sum of the squared weights that a row decodes to."""
    decoded = dequantize_batch_arrow(pa.Table.from_batches([row]))["weights"][0].values
    weights = decoded.to_numpy()
    pieces = (weights[start : start + _PIECE] for start in range(0, weights.size, _PIECE))
    return math.fsum(float(np.square(piece, dtype=np.float64).sum()) for piece in pieces)


# All floats are multiples of a part of 1 that this is the number of.
_PARTS = 2**1074


def _in_parts(value: float) -> int:
    numerator, denominator = value.as_integer_ratio()
    return numerator * (_PARTS // denominator)


class Totals:
    """Sums over the layers of a run, and what is to be told of it at its end.

    They are exact, so they do not depend on the order of layers, and on who adds which.
    """

    def __init__(
        self,
        layers: int = 0,
        skipped: Sequence[LayerError] = (),
        missed: Sequence[str] = (),
        weights: int = 0,
        stored_bits: int = 0,
        squared_error: int = 0,
        norm: int = 0,
        underflows: Sequence[Mapping[str, Any]] = (),
        told: Sequence[str] = (),
        quantized: Sequence[QuantizedLayer] = (),
    ) -> None:
        self.layers = layers
        self.skipped = list(skipped)
        self.missed = list(missed)
        self.underflows = [Underflow(**each) for each in underflows]
        self.told = list(told)
        self.weights = weights
        self.stored_bits = stored_bits
        self._squared_error = squared_error
        self._norm = norm
        self.quantized = list(quantized)

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Totals:
        """Return what `to_dict` was called of, or `sums`."""
        for name in ("layers", "weights", "stored_bits", "squared_error", "norm"):
            if not isinstance(said[name], int):
                raise TypeError(f"{name} is {said[name]!r}")
        skipped = [LayerError(**error) for error in said["skipped"]]
        quantized = [QuantizedLayer.from_list(each) for each in said.get("quantized", ())]
        return cls(**{**said, "skipped": skipped, "quantized": quantized})

    def copy(self) -> Totals:
        """Return the same, to which nothing is added that is added to these."""
        found = Totals()
        found.include(self)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what makes the same totals again, for JSON."""
        return {**self.sums(), "quantized": [layer.to_list() for layer in self.quantized]}

    def sums(self) -> dict[str, Any]:
        """Return the same without what became of each layer."""
        return {
            "layers": self.layers,
            "skipped": [asdict(error) for error in self.skipped],
            "missed": self.missed,
            "weights": self.weights,
            "stored_bits": self.stored_bits,
            "squared_error": self._squared_error,
            "norm": self._norm,
            "underflows": [asdict(each) for each in self.underflows],
            "told": self.told,
        }

    def add(self, batch: pa.RecordBatch, layers: Sequence[QuantizedLayer]) -> None:
        """Add layers, of which this is known."""
        shapes = batch["shape"].to_pylist()
        for i, (shape, layer) in enumerate(zip(shapes, layers, strict=True)):
            count = math.prod(shape)
            error = layer.mse * count
            self._squared_error += _in_parts(error)
            if layer.relative_error > 0:
                self._norm += _in_parts(error / layer.relative_error**2)
            else:
                self._norm += _in_parts(_squares(batch.slice(i, 1)))  # decoded as it was
            self.weights += count
            self.stored_bits += layer.bits
        self.layers += batch.num_rows
        self.quantized += layers

    def include(self, others: Totals) -> None:
        """Add what others have added up."""
        self.layers += others.layers
        self.skipped += others.skipped
        self.missed += others.missed
        self.underflows += others.underflows
        self.told += others.told
        self.weights += others.weights
        self.stored_bits += others.stored_bits
        self._squared_error += others._squared_error
        self._norm += others._norm
        self.quantized += others.quantized

    @property
    def bits_per_weight(self) -> float:
        """Bits of what the output has of a layer: codes, and all that decodes them."""
        return self.stored_bits / max(self.weights, 1)

    @property
    def relative_error(self) -> float:
        return math.sqrt(self._squared_error / self._norm) if self._norm else 0.0
