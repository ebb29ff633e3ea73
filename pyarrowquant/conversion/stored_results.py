"""Results that get their places in files, each of which goes to a store when it is whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pyarrowquant.conversion.checks import check_room_on_the_way
from pyarrowquant.conversion.parts import Done
from pyarrowquant.conversion.results import packed_in
from pyarrowquant.conversion.stored_work import StoredWork
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.formats._outline import Outline, Places


class StoredResults:
    """Results of which files are made one after the other, and put into a store.

    A file is begun with the first of its layers, and leaves this machine with the last one. An
    interrupted run is continued from before the first layer of files that were not whole.

    Parameters
    ----------
    work : StoredWork
    outline : Outline
        Of the output.
    is_folder : bool
        Whether the output is a folder.
    """

    def __init__(self, work: StoredWork, outline: Outline, is_folder: bool) -> None:
        self._work = work
        self._outline = outline
        self._output = work.new_output()
        if is_folder:
            self._output.mkdir()
        self._files = {file.path(self._output): file for file in outline.files}
        self._places = Places(outline, self._output)
        self._left: dict[Path, set[str]] = {path: set() for path in self._files}
        for name in self._places.names:
            for path in self._places.files_of(name):
                self._left[path].add(name)
        self.done: Done | None = None
        self._is_sent = is_folder or len(self._files) > 1
        if self._is_sent:
            self.done = work.begin([path.name for path in self._files])
        self._before = (self.done or Done(0, 0, Totals())).copy()
        self._begun: dict[Path, Done] = {}
        check_room_on_the_way(outline.files, self._output)

    def add(self, results: pa.RecordBatch, done: Done) -> None:
        sent = self._sent()
        for layer in packed_in(pa.Table.from_batches([results])):
            for path in self._places.files_of(layer.name):
                if path not in self._begun and path not in sent:
                    self._begin(path)
                self._left[path].discard(layer.name)
            self._places.fill(layer, sent)
        self._before = done.copy()
        whole = [path for path in self._begun if not self._left[path]]
        if self._is_sent and whole:
            for path in whole:
                self._send(path)
            firsts = [self._before, *self._begun.values()]
            self._work.note_done(min(firsts, key=lambda first: first.batches))

    def finish(self, totals: Totals) -> Path:
        for path in self._files.keys() - self._sent():
            if path not in self._begun:  # of tensors that are kept
                self._begin(path)
            if self._is_sent:
                self._send(path)
        if self._is_sent:
            self._work.note_done(self._before)
        self._outline.finish(self._output)
        return self._output

    def _sent(self) -> set[Path]:
        return {path for path in self._files if path.name in self._work.files}

    def _begin(self, path: Path) -> None:
        self._files[path].begin(self._output)
        self._begun[path] = self._before

    def _send(self, path: Path) -> None:
        self._work.send(path, path.name)
        del self._begun[path]
