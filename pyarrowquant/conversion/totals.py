"""Sums over the layers of a run of `quantize`, and the summary of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from pyarrowquant import dequantize_batch_arrow
from pyarrowquant._core.binary import lengths
from pyarrowquant.cli._show import show_json, show_warning, size_text
from pyarrowquant.conversion.result_files import TABLES
from pyarrowquant.errors import SkippedLayerWarning
from pyarrowquant.formats._onnx_data import data_files


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
        weights: int = 0,
        stored_bytes: int = 0,
        squared_error: float = 0.0,
        norm: float = 0.0,
    ) -> None:
        self.layers = layers
        self.skipped = list(skipped)
        self.weights = weights
        self.stored_bytes = stored_bytes
        self._squared_error = squared_error
        self._norm = norm

    def to_dict(self) -> dict[str, Any]:
        """Return what makes the same totals again."""
        return {
            "layers": self.layers,
            "skipped": self.skipped,
            "weights": self.weights,
            "stored_bytes": self.stored_bytes,
            "squared_error": self._squared_error,
            "norm": self._norm,
        }

    def warn(self, message: Warning | str, category: type[Warning], *_: object) -> None:
        """Print a warning, and keep what it says of a layer that is left out."""
        show_warning(message)
        if issubclass(category, SkippedLayerWarning):
            self.skipped.append(str(message))

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

    def show(self, destination: Path, kind: str, seconds: float, as_json: bool) -> None:
        relative_error = math.sqrt(self._squared_error / self._norm) if self._norm else 0.0
        summary = {
            "destination": str(destination),
            "layers": self.layers,
            "skipped": self.skipped,
            "weights": self.weights,
            "bytes": _size(destination),
            "bits_per_weight": 8 * self.stored_bytes / max(self.weights, 1),
            "relative_error": relative_error,
            "seconds": seconds,
        }
        if kind not in TABLES.values():  # other formats have other scales and zero-points
            del summary["bits_per_weight"]
        if as_json:
            show_json(summary)
            return
        bits = summary.get("bits_per_weight")
        click.echo(
            f"{self.layers} layers, {self.weights:,} weights, "
            + ("" if bits is None else f"{bits:.2f} bits a weight, ")
            + f"relative error {relative_error:.4f}, {seconds:.2f} s"
        )
        if self.skipped:
            click.echo(f"{len(self.skipped)} layers were left out")
        click.echo(f"'{destination}': {size_text(_size(destination))}")


def _size(path: Path) -> int:
    """Bytes of a file with its external data, or of a folder."""
    files = path.rglob("*") if path.is_dir() else (path, *data_files(path))
    return sum(file.stat().st_size for file in files if file.is_file())
