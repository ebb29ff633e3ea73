"""Results that get their places in an output that goes to a store when it is whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from pyarrowquant.conversion.checks import check_room_on_the_way
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.results import packed_in
from pyarrowquant.conversion.stores.stored_work import StoredWork
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.formats._outline import Outline, Places
from pyarrowquant.formats._watching import listening


class StoredResults:
    """Results in an output on this machine, of which an interrupted run leaves nothing.

    Parameters
    ----------
    work : StoredWork
    outline : Outline
        Of the output.
    is_folder : bool
        Whether the output is a folder.
    """

    done: Done | None = None

    def __init__(self, work: StoredWork, outline: Outline, is_folder: bool) -> None:
        self._outline = outline
        self._output = work.new_output()
        if is_folder:
            self._output.mkdir()
        check_room_on_the_way(outline.files, self._output)
        outline.lay_out(self._output)
        self._told: list[str] = []
        self._places = Places(outline, self._output)

    def begin(self, go_on: Callable[[], object]) -> None:
        with listening() as self._told:
            self._outline.fill_known(self._output, go_on)

    def add(self, results: pa.RecordBatch, done: Done) -> None:
        for layer in packed_in(pa.Table.from_batches([results])):
            self._places.fill(layer)

    def finish(self, totals: Totals) -> Path:
        self._outline.finish(self._output)
        totals.told += self._told
        return self._output
