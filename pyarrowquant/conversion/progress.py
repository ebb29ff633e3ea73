"""What a conversion tells of itself while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from pyarrowquant._core.source import weights_bytes

_SECONDS_BETWEEN_PARTS = 0.05


@dataclass(frozen=True)
class Step:
    """How far a conversion is.

    Attributes
    ----------
    what : {"fit", "quantize"}
        Whether bit widths are fitted to a budget, or layers quantized.
    bytes : int
        Bytes of weights that are done, as they are read, decoded and unpacked, with those of an
        interrupted run that is continued.
    total : int or None
        Bytes of all weights that are read; None if that is not known. `bytes` is never more.
    layers : int
        Layers that this run has quantized, of the batches that are done.
    """

    what: str
    bytes: int
    total: int | None
    layers: int


class Meter:
    """Counts what is done of a source, and tells it.

    Parameters
    ----------
    total : int or None
        Bytes of all weights that are read; None if that is not known.
    tell : callable or None
        Gets a `Step` after each batch, and some within one.
    """

    def __init__(self, total: int | None, tell: Callable[[Step], object] | None) -> None:
        self._total = total
        self._tell = tell
        self._before = 0  # what an interrupted run has done
        self._read = 0
        self._layers = 0
        self._fitted = 0
        self._of_batch = 0
        self._next_part = 0.0

    def skip(self, nbytes: int) -> None:
        """Count what was done before."""
        self._before += nbytes
        self._quantized(0)

    def fitting(self, done: int) -> None:
        """Tell of bit widths that are fitted: so many bytes of the batch are measured."""
        if self._is_time():
            self._tell_fitted(done)

    def fitted(self, nbytes: int) -> None:
        """Count a batch that is measured."""
        self._fitted += nbytes
        self._tell_fitted(0)

    def _tell_fitted(self, done: int) -> None:
        if self._tell is not None:
            self._tell(Step("fit", self._within(self._fitted + done), self._total, 0))

    def quantizing(self, layer: str | None, done: int, _: int | None) -> None:
        """Tell how far this run has quantized the batch; its layers count when it is done."""
        if layer is not None:
            self._of_batch += 1
        if self._is_time():
            self._quantized(done)

    def take(self, nbytes: int, layers: int) -> None:
        """Count batches that others have quantized."""
        self._read += nbytes
        self._layers += layers
        self._quantized(self._read)

    @property
    def taken(self) -> tuple[int, int]:
        """Bytes and layers of the batches that are done of this run."""
        return self._read, self._layers

    def back_to(self, nbytes: int, layers: int) -> None:
        """Count no more than so much, as the rest is done again."""
        self._read, self._layers = nbytes, layers

    def watch(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """Give the same batches; each counts as a whole when the next one is asked for."""
        return pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader))

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            yield batch
            self._read += weights_bytes(batch)
            del batch  # before the next one is read
            self._layers += self._of_batch
            self._of_batch = 0
            self._quantized(self._read)

    def _quantized(self, done: int) -> None:
        if self._tell is not None:
            nbytes = self._within(self._before + done)
            self._tell(Step("quantize", nbytes, self._total, self._layers))

    def _within(self, nbytes: int) -> int:
        """Bound what is done by the total: batches have the little that Arrow adds, too."""
        return nbytes if self._total is None else min(nbytes, self._total)

    def _is_time(self) -> bool:
        """Whether it is not too soon after the last part."""
        now = time.monotonic()
        if now < self._next_part:
            return False
        self._next_part = now + _SECONDS_BETWEEN_PARTS
        return True
