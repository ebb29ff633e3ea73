"""The choices of layers, measured batch by batch: here or by workers of a cluster."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from pyarrowquant._core.options import quantize_options
from pyarrowquant._core.progress import EachPart, Reporter
from pyarrowquant._core.source import INPUT_COLUMNS, Source, weights_bytes
from pyarrowquant.conversion.ahead import read_ahead
from pyarrowquant.conversion.importance import weighted
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.stage import OfBatches
from pyarrowquant.conversion.viewing import Viewed
from pyarrowquant.errors import LayerError
from pyarrowquant.reading.importance import Importance
from pyarrowquant.recipes.measuring import Choices, Costs, measured, rounds_of

_RESULT_BYTES = 2**20  # some numbers for each layer


@dataclass(frozen=True)
class Measuring(OfBatches):
    """What is measured of the layers of a source, on whichever machine. It can be pickled.

    Attributes
    ----------
    batch_bytes : int
    choices : mapping
        What layers may have, by names.
    quality_floor : mapping
    continue_on_error : bool
    importance : Importance or None
        Of the columns of layers, before factors are moved.
    """

    batch_bytes: int
    choices: Choices
    quality_floor: Mapping[str, float]
    continue_on_error: bool
    importance: Importance | None

    @property
    def result_bytes(self) -> int:
        return _RESULT_BYTES

    def on(self, source: Viewed) -> Measurer:
        return Measurer(self, source)


@dataclass(frozen=True)
class Measured:
    """What was measured of a batch.

    Attributes
    ----------
    batches : int
        1, and 0 after the last.
    read : int
        How many bytes of weights it has.
    costs : dict of str to Costs
        Of layers that did not fail.
    skipped : list of LayerError
        What is wrong with others.
    """

    batches: int
    read: int
    costs: dict[str, Costs]
    skipped: list[LayerError]

    def tell(self, meter: Meter) -> None:
        meter.fitted(self.read)


class Measurer:
    """Measures batches of a source that is open.

    Parameters
    ----------
    task : Measuring
    source : Viewed
    """

    def __init__(self, task: Measuring, source: Viewed) -> None:
        self._task = task
        self._source = source

    def outcomes(
        self, skip: int, count: int | None, threads: int | None, meter: Meter
    ) -> Generator[Measured, None, None]:
        """Measure so many batches, or all, without some at the beginning."""
        task = self._task
        rounds = rounds_of(task.choices)
        part = EachPart(lambda _, done, __: meter.fitting(done // rounds))
        with read_ahead(self._source.model, task.batch_bytes, skip, count) as reader:
            for batch in islice(weighted(reader, task.importance, self._source), count):
                source = Source(batch, INPUT_COLUMNS)
                data = source.read_all()
                options = replace(
                    quantize_options(threads=threads), type_names=tuple(source.type_names.items())
                )
                read = weights_bytes(data)
                with Reporter(part, read * rounds) as reporter:
                    costs, skipped = measured(
                        data,
                        options,
                        task.choices,
                        task.quality_floor,
                        task.continue_on_error,
                        reporter,
                    )
                del batch, source, data  # before the next one is read
                found = Measured(1, read, costs, skipped)
                yield found
                found.tell(meter)
        yield Measured(0, 0, {}, [])
