"""Results of batches, written to their places in an output where they are made.

The output has begun in a folder that workers of a cluster see, too, so that no results travel to
the driver.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pyarrowquant.conversion.partial.results import checksum_of, packed_in
from pyarrowquant.conversion.partial.shared_folder import SharedOutput
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.quantizing import Outcome, Quantizing, outlined_again
from pyarrowquant.conversion.stage import OfBatches
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.conversion.viewing import Viewed
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import Places


@dataclass(frozen=True)
class Placing(OfBatches):
    """What becomes of the batches of a source, and where it goes. It can be pickled.

    Attributes
    ----------
    quantizing : Quantizing
        What becomes of layers.
    origin : Origin
    output : SharedOutput
    """

    quantizing: Quantizing
    origin: Origin
    output: SharedOutput

    @property
    def result_bytes(self) -> int:
        return self.quantizing.result_bytes  # of a worker that does not see the output

    def on(self, source: Viewed) -> Placer:
        return Placer(self, source)


@dataclass(frozen=True)
class Placed:
    """What a batch has become whose results are in the output, with batches that have none.

    Attributes
    ----------
    batches : int
        How many were read.
    read : int
        How many bytes of weights these have.
    totals : Totals
        Of their layers.
    written : dict of str to str
        Checksums of what is in the output, by the names of layers.
    """

    batches: int
    read: int
    totals: Totals
    written: dict[str, str]

    def tell(self, meter: Meter) -> None:
        meter.take(self.read, self.totals.layers)


class Placer:
    """Quantizes batches of a source that is open, and writes results to their places.

    Parameters
    ----------
    task : Placing
    source : Viewed
    """

    def __init__(self, task: Placing, source: Viewed) -> None:
        self._task = task
        self._model = source.model
        self._quantizer = task.quantizing.on(source)
        self._places: Places | None = None
        if task.output.folder.is_reached():
            outline = outlined_again(task.quantizing, source.model, task.origin)
            self._places = Places(outline, Path(task.output.path))

    def outcomes(
        self, skip: int, count: int | None, threads: int | None, meter: Meter
    ) -> Generator[Outcome | Placed, None, None]:
        """Do it with so many batches, or all, without some at the beginning.

        Results that cannot be written here are given as they are.
        """
        with closing(self._quantizer.outcomes(skip, count, threads, meter)) as outcomes:
            for outcome in outcomes:
                if outcome.results is None or self._places is None:
                    yield outcome
                else:
                    yield self._placed(outcome, outcome.results, self._places)
                del outcome  # before the next batch is quantized

    def _placed(
        self, outcome: Outcome, results: pa.RecordBatch, places: Places
    ) -> Outcome | Placed:
        quantizing = self._task.quantizing
        told = quantizing.check(results, self._model)
        layers = list(packed_in(pa.Table.from_batches([results])))
        paths = {path for layer in layers for path in places.files_of(layer.name)}
        with self._task.output.opened(paths) as files:
            if files is None:
                return outcome
            written = {
                layer.name: checksum_of(places.fill_opened(layer, files)) for layer in layers
            }
        totals = Totals(skipped=outcome.skipped, missed=outcome.missed, told=told)
        totals.underflows += outcome.underflows
        totals.add(results, quantizing.layers_in(results))
        return Placed(outcome.batches, outcome.read, totals, written)
