"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import click
import pyarrow as pa

from pyarrowquant._core.source import weights_bytes
from pyarrowquant.cli._show import size_text

_SECONDS_BETWEEN_LINES = 2.0


class Meter:
    """Counts the bytes that are read of a source.

    Parameters
    ----------
    what : str
        The work, as the bar names it.
    total : int or None
        Bytes of the source; None if that is not known.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self.bytes = 0
        self._layers = 0
        self._bar: Any = None
        self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES

    def __enter__(self) -> Meter:
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, desc=self._what, unit="B", unit_scale=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def skip(self, nbytes: int) -> None:
        """Count what was done before."""
        self.bytes += nbytes
        if self._bar is not None:
            self._bar.initial = self._bar.n = nbytes

    def watch(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """Give the same batches; each counts when the next one is asked for."""
        return pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader))

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            yield batch
            self._count(weights_bytes(batch), batch.num_rows)

    def _count(self, nbytes: int, layers: int) -> None:
        self.bytes += nbytes
        self._layers += layers
        if self._bar is not None:
            self._bar.update(nbytes)
        elif time.monotonic() >= self._next_line:
            of = f" of {size_text(self._total)}" if self._total else ""
            click.echo(
                f"{self._what}: {self._layers} layers, {size_text(self.bytes)}{of}", err=True
            )
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
