"""The batches of a source, quantized: here or by a worker of a cluster, with the same results."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.encoded_rows import said_group_size
from pyarrowquant._core.encodings import ENCODINGS, INTEGER
from pyarrowquant._core.options import Options
from pyarrowquant._core.progress import EachPart
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.source import weights_bytes
from pyarrowquant._core.underflow import Underflow
from pyarrowquant.conversion.ahead import read_ahead
from pyarrowquant.conversion.beyond import beyond_float16
from pyarrowquant.conversion.importance import weighted
from pyarrowquant.conversion.planning import planned
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.quantized import ERRORS, QuantizedLayer
from pyarrowquant.conversion.shared_scales import shared_scales
from pyarrowquant.conversion.stage import OfBatches
from pyarrowquant.conversion.viewing import Viewed
from pyarrowquant.errors import LayerError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import Outline
from pyarrowquant.reading.finite import naming_file
from pyarrowquant.reading.importance import Importance
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.planned import PlannedLayout, layout_of, plan_layer
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.stream import stream_within

_SAID_OF_ROWS = {"layer_name", "shape", "bit_width", "group_size", "encoding", *ERRORS}


@dataclass(frozen=True)
class Quantizing(OfBatches):
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
    left_out : frozenset of str
        Tensors that are in no batch, as what becomes of them is there.
    """

    target: Format
    batch_bytes: int
    settings: Settings
    recipe: Recipe | None
    quality_floor: Mapping[str, float] | None
    continue_on_error: bool
    importance: Importance | None
    left_out: frozenset[str] = frozenset()

    @property
    def result_bytes(self) -> int:
        return self.batch_bytes

    def on(self, source: Viewed) -> Quantizer:
        return Quantizer(self, source)

    def check(self, results: pa.RecordBatch, model: Model) -> list[str]:
        """Raise where the format cannot hold a layer; return what is to be told of others."""
        dtype = self.target.scale_dtype(model, self.settings)
        self.target.check_results(pa.Table.from_batches([results]), model, dtype)
        return beyond_float16(results, model) if self.target.copies_files else []

    def layers_in(self, results: pa.RecordBatch) -> list[QuantizedLayer]:
        """Say what became of the layers of results."""
        names = results.schema.names
        columns = [name for name in names if name in _SAID_OF_ROWS]
        has_super_scales = [False] * results.num_rows
        if "super_scales" in names:
            has_super_scales = [each.is_valid for each in results["super_scales"]]
        rows = results.select(columns).to_pylist()
        return [self._layer(row, has) for row, has in zip(rows, has_super_scales, strict=True)]

    def _layer(self, row: Mapping[str, Any], has_super_scales: bool) -> QuantizedLayer:
        name, shape = row["layer_name"], row["shape"]
        said = plan_layer(name, shape, self.settings, self.recipe).settings or self.settings
        encoding = row.get("encoding", INTEGER)
        if encoding != said.encoding:  # which a floor has widened
            said = said.with_overrides({"encoding": encoding})
        group_size = said_group_size(encoding, row["group_size"], has_super_scales)
        settings = replace(said, bit_width=row["bit_width"], group_size=group_size)
        bits = self.target.stored_bits(shape, settings)
        return QuantizedLayer(name, settings, bits, *(row[error] for error in ERRORS))


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
        model = self._source.model
        if self._task.left_out:
            model = model.without(self._task.left_out)
        with read_ahead(model, self._task.batch_bytes, skip, count) as batches:
            yield from self._outcomes(batches, count, threads, meter)

    def of_tensors(
        self, names: Collection[str], threads: int | None, meter: Meter
    ) -> Generator[Outcome, None, None]:
        """Quantize the batches that some of the tensors alone make."""
        model = self._source.model
        left = model.without({tensor.name for tensor in model.all_tensors} - set(names))
        with read_ahead(left, self._task.batch_bytes) as batches:
            yield from self._outcomes(batches, None, threads, meter)

    def _outcomes(
        self,
        weights: pa.RecordBatchReader,
        count: int | None,
        threads: int | None,
        meter: Meter,
    ) -> Generator[Outcome, None, None]:
        task, target, model = self._task, self._task.target, self._source.model
        reader = weighted(weights, task.importance, self._source)
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
        with naming_file(model):
            for results in stream:
                yield outcome(results)
                del results  # before the next batch is quantized
        yield outcome(None)


def layouts_of(quantizing: Quantizing, model: Model) -> list[PlannedLayout]:
    """List the layers that are quantized, and how they will be coded."""
    target, usual = quantizing.target, quantizing.settings
    layers = [
        layer
        if layer.settings is None
        else replace(layer, settings=fitting(target, model, usual, layer.settings, layer.shape))
        for layer in planned(model, usual, quantizing.recipe)
    ]
    return [layout for layer in layers if (layout := layout_of(layer))]


def outlined_again(quantizing: Quantizing, model: Model, origin: Origin) -> Outline:
    """Return what the output will be, as the driver has it, who has told what there is to tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layouts = layouts_of(quantizing, model)
        return quantizing.target.outline(layouts, model, quantizing.settings, origin)


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
