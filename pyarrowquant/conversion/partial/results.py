"""Where the results of a run go: to their places in the output, or to parts of which it is made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pyarrowquant._core.placing import sync, sync_tree
from pyarrowquant._core.results import Packed, batches_of
from pyarrowquant._core.source import RESULT_COLUMNS, Source
from pyarrowquant.conversion.partial.checksums import checksum
from pyarrowquant.conversion.partial.damage import WorkError
from pyarrowquant.conversion.partial.described import DescribedLayers
from pyarrowquant.conversion.partial.growing import NOTHING
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.work import Work
from pyarrowquant.conversion.partial.written import WrittenLayers
from pyarrowquant.conversion.quantized import QuantizedLayer
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._outline import Outline, Places
from pyarrowquant.formats._watching import listening
from pyarrowquant.reading.model import Model


def are_placed(target: Format, model: Model, continue_on_error: bool, floor: bool) -> bool:
    """Whether results get their places as they come: what is planned of layers will hold."""
    return target.outlines(model) and not continue_on_error and not floor


def packed_in(results: pa.Table) -> Iterator[Packed]:
    """Give the rows of results, which come from the engine itself."""
    for _, layers in batches_of(Source(results, RESULT_COLUMNS), is_checked=True):
        yield from layers


# Bytes that are written to the end in any case: an interrupt would lose the results before it.
_SHORT = 1 << 28

Note = Callable[[], object]  # waits until what is noted is on the disk


class ResultsOfRun(Protocol):
    """What takes results, batch by batch.

    What is on its way to the disk is waited for apart from that: `begin`, and then what `add` gives
    is called by one thread, in this order, while results are added by another one.
    """

    @property
    def done(self) -> Done | None:
        """How far an interrupted run was; None for a new one."""

    def begin(self, go_on: Callable[[], object]) -> None:
        """Write what needs no results, if that is not there.

        Parameters
        ----------
        go_on : callable
            Is called now and then, and may raise to break it off.
        """

    def add(self, results: pa.RecordBatch, done: Done) -> Note | None:
        """Write results; return what notes how far the run is with them, if that is to be done."""

    def finish(self, totals: Totals) -> Path:
        """Write what is left of the output, once all results are there; return its path."""


class PlacedResults:
    """Results that get their places in the output as they come.

    Parameters
    ----------
    work : Work
    outline : Outline
        Of the output, but for files that were made as a whole.
    is_folder : bool
        Whether the output is a folder.
    """

    def __init__(self, work: Work, outline: Outline, is_folder: bool) -> None:
        self._work = work
        self._outline = outline
        self.done = work.done_in_output() if outline.has_begun(work.output) else None
        if self.done is None:
            output = work.output_of_files()
            if is_folder:
                output.mkdir(exist_ok=True)
            outline.lay_out(output)
        self._has_begun = self.done is not None
        self._told: list[str] = []  # of what this run has written of kept tensors
        self._places = Places(outline, work.output)
        self._numbers = {name: number for number, name in enumerate(self._places.names)}
        self._noted = NOTHING if self.done is None else self.done.written
        self._notes = WrittenLayers(Path(work.kept_in), self._noted)
        found = self._notes.read()
        self._described = DescribedLayers(
            Path(work.kept_in), NOTHING if self.done is None else self.done.described
        )
        if self.done is not None:
            self.done.totals.quantized = self._described.read()
        self._written = {
            name: found[number] for name, number in self._numbers.items() if number in found
        }
        self.added = self.taken = 0
        if (lost := self._lost()) is not None:
            raise WorkError(
                f"'{work.output.name}': layer '{lost}' was written, and is not there any more or "
                "has changed since. Without resume=True, a new run begins"
            )

    def begin(self, go_on: Callable[[], object]) -> None:
        if not self._has_begun:
            is_short = self._outline.known_bytes <= _SHORT
            with listening() as self._told:
                self._outline.fill_known(self._work.output, (lambda: None) if is_short else go_on)
            sync_tree(self._work.output.parent)  # before anything says that some of it is done
            self._has_begun = True

    def add(self, results: pa.RecordBatch, done: Done) -> Note:
        files: set[Path] = set()
        for layer in packed_in(pa.Table.from_batches([results])):
            files.update(self._places.fill(layer, are_shared=bool(self._written)))
        self.added += results.num_rows
        return partial(self._note, done, files, {})

    def has(self, written: Mapping[str, str]) -> bool:
        """Whether what workers have written of layers is there, for this machine too."""
        return all(self._has(*each) for each in written.items())

    def take(self, written: Mapping[str, str], done: Done) -> Note:
        """Take layers that workers have written; return what notes how far the run is then."""
        self._written.update(written)
        self.taken += len(written)
        return partial(self._note, done, (), written)

    def _note(self, done: Done, files: Collection[Path], written: Mapping[str, str]) -> None:
        for file in files:
            sync(file)
        numbered = {self._numbers[name]: found for name, found in written.items()}
        self._noted = self._notes.add(numbered)
        described = self._described.note(done.totals.quantized)
        done.totals.told += self._told
        self._work.note_done(replace(done, written=self._noted, described=described))

    def _has(self, name: str, found: str) -> bool:
        try:
            return checksum_of(self._places.ends(name)) == found
        except OSError:  # it was never here
            return False

    def _lost(self) -> str | None:
        """Name a layer that workers have written, and that is not there any more."""
        return next(
            (name for name, found in self._written.items() if not self._has(name, found)), None
        )

    def finish(self, totals: Totals) -> Path:
        if (lost := self._lost()) is not None:
            self._work.new_output()  # as none of it can be relied upon
            raise OSError(
                f"'{self._work.output}' does not have any more what workers wrote of layer "
                f"'{lost}': its file system does not keep what several machines write into a file. "
                "Give a destination elsewhere, or quantize on one machine"
            )
        self._outline.finish(self._work.output)
        totals.told += self._told
        return self._work.output


def checksum_of(ends: list[bytes]) -> str:
    """Return what is noted of the ends of what workers have written."""
    return checksum(ends).decode()


class KeptResults:
    """Results that are kept as parts, since the output follows from all of them.

    Parameters
    ----------
    work : Work
    write : callable
        Writes the output: gets all results, its path, and the totals.
    describe : callable
        Says what became of the layers of results.
    """

    def __init__(
        self,
        work: Work,
        write: Callable[[pa.Table, Path, Totals], object],
        describe: Callable[[pa.RecordBatch], list[QuantizedLayer]],
    ) -> None:
        self._work = work
        self._write = write
        self._describe = describe
        self.done = work.done_in_parts()

    def begin(self, go_on: Callable[[], object]) -> None:
        pass  # the output follows at the end

    def add(self, results: pa.RecordBatch, done: Done) -> None:
        self._work.add(results, done)

    def finish(self, totals: Totals) -> Path:
        output, results = self._work.new_output(), self._work.results()
        batches = map(self._describe, results.to_batches())
        totals.quantized = [layer for each in batches for layer in each]  # of earlier runs, too
        with listening() as told:
            self._write(results, output, totals)
        totals.told += told
        return output
