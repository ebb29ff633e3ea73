"""The files of an output, each made as a whole where its layers are quantized.

They go to a store, or into a folder that other machines see, too. On a cluster workers make them,
so that no results travel to the driver.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pyarrowquant.conversion.partial.journal import Stamp
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.results import packed_in
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.quantizing import Quantizing, outlined_again
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.conversion.viewing import Viewed
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import LayerRegion, Outline, OutlinedFile, Places
from pyarrowquant.formats._watching import listening
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import Tensor, bytes_in_batch

_RESULT_BYTES = 2**20  # of what is said of a file
_READ_ALONG = 2**24  # bytes of a tensor that is kept, which cost less than to read around them


class Depot(Protocol):
    """Where files go, as it is to whoever makes them. It can be pickled."""

    def is_reached(self) -> bool:
        """Whether this machine can put files there.

        Raises
        ------
        WorkerError
            It cannot, and there is no other way.
        """

    def room(self, file: OutlinedFile) -> AbstractContextManager[tuple[OutlinedFile, Path]]:
        """Give a file and an output, at whose place for it the file can be made."""

    def deliver(self, name: str, path: Path) -> Stamp:
        """Have a file of a name there, which is whole at a path of this machine."""


class Deliveries(Protocol):
    """What the one who has files made does with them."""

    @property
    def depot(self) -> Depot:
        """Where they go."""

    @property
    def left(self) -> Sequence[str]:
        """The names of those that are to be made."""

    @property
    def done(self) -> Done | None:
        """How far an interrupted run was; None for a new one."""

    def take(self, name: str, stamp: Stamp) -> bool:
        """Give a file that has been delivered its place in the output; False if it is not there."""


@dataclass(frozen=True)
class MakingFiles:
    """What is done for files of an output, on whichever machine. It can be pickled.

    Attributes
    ----------
    quantizing : Quantizing
        What becomes of layers.
    origin : Origin
    depot : Depot
    names : sequence of str
        Of the files.
    """

    quantizing: Quantizing
    origin: Origin
    depot: Depot
    names: Sequence[str]

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def result_bytes(self) -> int:
        return _RESULT_BYTES

    def named(self, number: int) -> str:
        return f"file '{self.names[number]}'"

    def on(self, source: Viewed) -> FileMaker:
        return FileMaker(self, source)


@dataclass(frozen=True)
class MadeFile:
    """A file that is whole where it was to go.

    Attributes
    ----------
    name : str
    stamp : Stamp or None
        None for one that was not made, as this machine does not reach that place.
    read : int
        How many bytes of weights were read for it, or needed not to be.
    totals : Totals
        Of its layers.
    """

    name: str
    stamp: Stamp | None
    read: int
    totals: Totals

    @property
    def batches(self) -> int:
        return 1  # it is never the end of the source

    def tell(self, meter: Meter) -> None:
        meter.take(self.read, self.totals.layers)


class FileMaker:
    """Makes files of a source that is open.

    Parameters
    ----------
    task : MakingFiles
    source : Viewed

    Raises
    ------
    WorkerError
        This machine does not reach what files go to, and it must.
    """

    def __init__(self, task: MakingFiles, source: Viewed) -> None:
        self._task = task
        self._source = source
        self._files: dict[str, OutlinedFile] = {}
        if not task.depot.is_reached():
            return
        outline = outlined_again(task.quantizing, source.model, task.origin)
        self._files = {file.name: file for file in outline.files}
        self._tensors = tensors_of(outline, source.model)
        self._layers = outline.layers
        self._quantizer = task.quantizing.on(source)

    def outcomes(
        self, skip: int, count: int | None, threads: int | None, meter: Meter
    ) -> Generator[MadeFile, None, None]:
        """Make so many files, or all, without some at the beginning."""
        end = None if count is None else skip + count
        for name in islice(self._task.names, skip, end):
            if self._files:
                yield self._made(self._files[name], threads, meter)
            else:
                yield MadeFile(name, None, 0, Totals())

    def _made(self, file: OutlinedFile, threads: int | None, meter: Meter) -> MadeFile:
        depot, quantizing, model = self._task.depot, self._task.quantizing, self._source.model
        totals = Totals()
        with depot.room(file) as (placed, output):
            with listening() as totals.told:
                placed.begin(output)
            places = Places(Outline([placed]), output)
            tensors = self._tensors[file.name]
            in_vain = [each for each in tensors if self._is_passed_over(each)]
            wanted = {each.name for each in tensors} - {each.name for each in in_vain}
            read = sum(map(bytes_in_batch, in_vain))
            meter.take(read, 0)
            with closing(self._quantizer.of_tensors(wanted, threads, meter)) as outcomes:
                for outcome in outcomes:
                    read += outcome.read
                    totals.underflows += outcome.underflows
                    if outcome.results is not None:
                        totals.told += quantizing.check(outcome.results, model)
                        totals.add(outcome.results, quantizing.layers_in(outcome.results))
                        _fill(places, outcome.results)
                    del outcome  # before the next batch is quantized
            stamp = depot.deliver(file.name, placed.path(output))
        return MadeFile(file.name, stamp, read, totals)

    def _is_passed_over(self, tensor: Tensor) -> bool:
        return tensor.name not in self._layers and bytes_in_batch(tensor) > _READ_ALONG


def _fill(places: Places, results: pa.RecordBatch) -> None:
    for layer in packed_in(pa.Table.from_batches([results])):
        places.fill(layer)


def tensors_of(outline: Outline, model: Model) -> dict[str, list[Tensor]]:
    """Part the weights of a model among the files of its output, by their names.

    What is kept goes with the layers before it: long runs of tensors are read faster, and all that
    the model has is read, or passed over, once.
    """
    found: dict[str, list[Tensor]] = {file.name: [] for file in outline.files}
    owners = {
        region.layer.name: file.name
        for file in outline.files
        for region in file.regions
        if isinstance(region, LayerRegion)
    }
    owner = next(iter(owners.values()))
    for tensor in model.all_tensors:
        if model.can_quantize(tensor):
            owner = owners.get(tensor.name, owner)
            found[owner].append(tensor)
    return found
