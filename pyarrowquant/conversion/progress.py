"""What a conversion tells of itself while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from pyarrowquant._core.source import weights_bytes


@dataclass(frozen=True)
class Step:
    """How far a conversion is.

    Attributes
    ----------
    what : {"fit", "quantize"}
        Whether bit widths are fitted to a budget, or layers quantized.
    bytes : int
        Bytes of weights that are done, with those of an interrupted run that is continued.
    total : int or None
        Bytes of the source; None if that is not known.
    layers : int
        Layers that this run has quantized.
    """

    what: str
    bytes: int
    total: int | None
    layers: int


class Meter:
    """Counts what is read of a source, and tells it.

    Parameters
    ----------
    total : int or None
        Bytes of the source; None if that is not known.
    tell : callable or None
        Gets a `Step` after each batch.
    """

    def __init__(self, total: int | None, tell: Callable[[Step], object] | None) -> None:
        self._total = total
        self._tell = tell
        self._bytes = 0
        self._layers = 0

    def skip(self, nbytes: int) -> None:
        """Count what was done before."""
        self._bytes += nbytes
        self._quantized()

    def fitting(self, _: str, fraction: float) -> None:
        """Tell of bit widths that are fitted."""
        if self._tell is not None and self._total is not None:
            self._tell(Step("fit", int(fraction * self._total), self._total, 0))

    def watch(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """Give the same batches; each counts when the next one is asked for."""
        return pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader))

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            yield batch
            self._bytes += weights_bytes(batch)
            self._layers += batch.num_rows
            del batch  # before the next one is read
            self._quantized()

    def _quantized(self) -> None:
        if self._tell is not None:
            self._tell(Step("quantize", self._bytes, self._total, self._layers))
