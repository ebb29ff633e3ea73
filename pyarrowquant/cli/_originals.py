"""The original weights of a model, looked up by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import pyarrowquant
from pyarrowquant import read_weights
from pyarrowquant._core.binary import bytes_at, is_binary
from pyarrowquant._core.nested import flat


class Originals:
    """Layers of a model; those of local safetensors and Arrow files stay in their files.

    Parameters
    ----------
    source : str
        What `read_weights` takes.
    """

    def __init__(self, source: str) -> None:
        reader = read_weights(source)
        self._schema = reader.schema
        self._rows: dict[str, list[pa.RecordBatch]] = {}
        for batch in reader:
            for i, name in enumerate(batch["layer_name"].to_pylist()):
                if name is not None:
                    self._rows.setdefault(name, []).append(batch.slice(i, 1))

    def errors(self, results: pa.RecordBatch, threads: int | None) -> list[dict[str, Any]]:
        """Measure the layers of a batch of results."""
        names = dict.fromkeys(results["layer_name"].to_pylist())
        rows = [row for name in names for row in self._rows.get(name, [])]
        weights = pa.Table.from_batches(rows, self._schema)
        decoded = pa.Table.from_batches([results])
        found: list[dict[str, Any]] = pyarrowquant.compare(
            weights, decoded, threads=threads
        ).to_pylist()
        return found

    def left_out(self, names: Iterable[str]) -> list[str]:
        """Names of the layers that are not among these."""
        return sorted(self._rows.keys() - set(names))

    def weights(self, name: str, columns: int, pieces: Iterable[slice]) -> Iterator[Any]:
        """Some rows of a layer at a time, as float32 matrices of so many columns."""
        row = self._rows[name][0]
        column = row["weights"]
        raw = bytes_at(column, 0) if is_binary(column.type) else None
        for piece in pieces:
            start, stop = piece.start * columns, piece.stop * columns
            if raw is not None:
                part = _floats(raw, row["dtype"][0].as_py(), start, stop)
            else:
                values = flat(column[0])[start:stop]
                part = values.cast(pa.float32(), safe=False).to_numpy()
            yield part.reshape(-1, columns)


def _floats(raw: npt.NDArray[np.uint8], dtype: str, start: int, stop: int) -> Any:
    """Widen raw little-endian values."""
    size = 4 if dtype == "F32" else 2
    part = raw[start * size : stop * size]
    if dtype == "BF16":
        return (part.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return part.view("<f4" if dtype == "F32" else "<f2").astype(np.float32)
