"""The batches of a source, quantized: here or by a worker of a cluster, with the same results."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.encodings import ENCODINGS
from pyarrowquant._core.options import Options
from pyarrowquant._core.progress import EachPart
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.source import weights_bytes
from pyarrowquant._core.underflow import Underflow
from pyarrowquant.conversion.importance import weighted
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.shared_scales import shared_scales
from pyarrowquant.conversion.viewing import Viewed
from pyarrowquant.errors import LayerError
from pyarrowquant.formats._format import Format
from pyarrowquant.reading.importance import Importance
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.stream import stream_within


@dataclass(frozen=True)
class Quantizing:
    """What becomes of the batches of a source, on whichever machine. It can be pickled.

    Attributes
    ----------
    target : Format
    batch_bytes : int
    settings : Settings
        For what the recipe does not say.
    recipe : Recipe or None
        Fitted to the budget, if there is one.
    quality_floor : mapping or None
    continue_on_error : bool
    importance : Importance or None
        Of the columns of layers, before factors are moved.
    """

    target: Format
    batch_bytes: int
    settings: Settings
    recipe: Recipe | None
    quality_floor: Mapping[str, float] | None
    continue_on_error: bool
    importance: Importance | None

    @property
    def result_bytes(self) -> int:
        return self.batch_bytes

    def on(self, source: Viewed) -> Quantizer:
        return Quantizer(self, source)


@dataclass(frozen=True)
class Outcome:
    """What a batch has become, with batches before it that have no results.

    Attributes
    ----------
    results : pyarrow.RecordBatch or None
        None for batches at the end of which no layer was quantized.
    batches : int
        How many were read.
    read : int
        How many bytes of weights these have.
    skipped : list of LayerError
        What is wrong with layers that were left out.
    missed : list of str
        What is said of layers that miss the quality floor.
    underflows : list of Underflow
    """

    results: pa.RecordBatch | None
    batches: int
    read: int
    skipped: list[LayerError]
    missed: list[str]
    underflows: list[Underflow]

    def tell(self, meter: Meter) -> None:
        meter.take(self.read, 0 if self.results is None else self.results.num_rows)


class Quantizer:
    """Quantizes batches of a source that is open.

    Parameters
    ----------
    task : Quantizing
    source : Viewed
    """

    def __init__(self, task: Quantizing, source: Viewed) -> None:
        self._task = task
        self._source = source
        self._shared_scales = shared_scales(task.target, source.model, task.settings, task.recipe)

    def outcomes(
        self, skip: int, count: int | None, threads: int | None, meter: Meter
    ) -> Generator[Outcome, None, None]:
        """Quantize so many batches, or all, without some at the beginning."""
        task, target, model = self._task, self._task.target, self._source.model
        reader = weighted(model.reader(task.batch_bytes, skip=skip), task.importance, self._source)
        batches = read = 0
        skipped: list[LayerError] = []
        missed: list[str] = []
        underflows: list[Underflow] = []

        def counted() -> Iterator[pa.RecordBatch]:
            nonlocal batches, read
            for batch in islice(reader, count):
                batches += 1
                read += weights_bytes(batch)
                yield batch
                del batch  # before the next one is read

        def outcome(results: pa.RecordBatch | None) -> Outcome:
            nonlocal batches, read
            found = Outcome(results, batches, read, skipped[:], missed[:], underflows[:])
            batches = read = 0
            for each in (skipped, missed, underflows):
                each.clear()
            return found

        stream = stream_within(
            target.bit_widths,
            meter.watch(pa.RecordBatchReader.from_batches(reader.schema, counted())),
            Options(
                task.settings,
                continue_on_error=task.continue_on_error,
                metrics=True,
                sort=False,
                threads=arguments.thread_count(threads),
                kernel=arguments.kernel(),
                unit_layer_scales=target.unit_layer_scales,
            ),
            task.recipe,
            task.quality_floor,
            EachPart(meter.quantizing),
            skipped=skipped,
            missed=missed,
            underflows=underflows,
            fitting=partial(fitting, target, model, task.settings),
            layer_scale=self._shared_scales,
        )
        for results in stream:
            yield outcome(results)
            del results  # before the next batch is quantized
        yield outcome(None)


def fitting(
    target: Format, model: Model, usual: Settings, settings: Settings, shape: Sequence[int]
) -> Settings | None:
    """Return what a format has for a layer; None where it has nothing like these settings.

    Parameters
    ----------
    usual : Settings
        Of the run, for what the recipe does not say.
    """
    found = target.instead(settings, shape)
    if found.encoding not in target.encodings:
        return None
    encoding = ENCODINGS.get(found.encoding)
    if encoding is None or "scale_dtype" not in encoding.free:
        return found
    return replace(found, scale_dtype=target.scale_dtype(model, usual))
