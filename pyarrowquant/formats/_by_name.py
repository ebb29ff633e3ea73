"""The layers of a result by name, to be looked at more than once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pyarrow as pa

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Packed, batches_of
from pyarrowquant._core.source import RESULT_COLUMNS, Source
from pyarrowquant.formats._layers import Results
from pyarrowquant.reading.opened import MappedFile, NotMappedError


class LayersByName(Mapping[str, Packed]):
    """The layers of a result by name.

    A table is used as it is. A stream, which comes once, is written to a nameless temporary file
    and mapped from there, so that memory holds one of its batches.

    Parameters
    ----------
    results : Results
    folder : Path
        Where a temporary file is to lie.

    Raises
    ------
    ValueError
        A name comes twice, or the format cannot hold a layer.
    """

    def __init__(self, results: Results, folder: Path) -> None:
        self._mapped: MappedFile | None = None
        self._layers: dict[str, Packed] = {}
        source = results.source
        if not source.is_read:
            with tempfile.TemporaryFile(dir=folder) as file:
                _write(results, file)
                source = Source(self._read(file), RESULT_COLUMNS)
        for _, layers in batches_of(source, is_checked=True):
            for layer in layers:
                if layer.name in self._layers:
                    raise ValueError(f"Layer {quoted(layer.name)} is in the results twice")
                self._layers[layer.name] = layer
                _ = layer.zero_point  # kept, so that nobody has to read all zero-points again
            self.forget_pages()

    def _read(self, file: IO[bytes]) -> pa.Table:
        try:
            self._mapped = MappedFile(os.dup(file.fileno()))
        except NotMappedError:
            file.seek(0)
            return pa.ipc.open_stream(pa.PythonFile(file, "r")).read_all()
        return pa.ipc.open_stream(self._mapped.stream()).read_all()

    def __getitem__(self, name: str) -> Packed:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __enter__(self) -> LayersByName:
        return self

    def __exit__(self, *exception: object) -> None:
        self._layers = {}
        if self._mapped is not None:
            self._mapped.__exit__(None, None, None)

    def forget_pages(self) -> None:
        """Take what was read from the temporary file out of the process's memory."""
        if self._mapped is not None:
            self._mapped.forget_pages()


def _write(results: Results, file: IO[bytes]) -> None:
    """Write the batches of a stream, each when it comes."""
    # The format of streams, as dictionaries of later batches may be others.
    with pa.ipc.new_stream(pa.PythonFile(file, "w"), results.source.schema) as writer:
        for batch, _ in results.batches():
            writer.write_batch(batch)
    file.flush()
