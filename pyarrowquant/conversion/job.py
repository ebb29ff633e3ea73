"""A run of `quantize`: read, quantize part by part, write, and give the output its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant import __version__
from pyarrowquant._core import arguments
from pyarrowquant._core.options import Options
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.source import weights_bytes
from pyarrowquant.conversion.destination import check_destination
from pyarrowquant.conversion.identity import source_files
from pyarrowquant.conversion.planning import planned
from pyarrowquant.conversion.progress import Meter, Step
from pyarrowquant.conversion.signals import unhindered
from pyarrowquant.conversion.source import weights_bytes as bytes_of_model
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.conversion.unquantized import UnquantizedTensor, unquantized
from pyarrowquant.conversion.work import Part, Work
from pyarrowquant.formats._format import Format
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.stream import stream_within


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes
    ----------
    source : Model
    files : list of Path
        What is read, and so must not be replaced.
    destination : Path
    target : Format
    folder : bool
        Whether the destination is a folder.
    settings : Settings
        For what the recipe does not say.
    recipe : Recipe or None
    bits_per_weight : float or None
        A budget that bit widths are fitted to.
    quality_floor : dict or None
    continue_on_error : bool
    threads : int or None
    batch_bytes : int
    overwrite : bool
    """

    source: Model
    files: list[Path]
    destination: Path
    target: Format
    folder: bool
    settings: Settings
    recipe: Recipe | None
    bits_per_weight: float | None
    quality_floor: dict[str, float] | None
    continue_on_error: bool
    threads: int | None
    batch_bytes: int
    overwrite: bool

    def run(self, resume: bool, tell: Callable[[Step], object] | None) -> Totals:
        """Do it all, or what an interrupted run of the same job has left to do."""
        meter = Meter(bytes_of_model(self.source), tell)
        with Work(self.destination, self._identity(), resume) as work:
            totals = Totals(**work.totals) if work.is_complete else Totals()
            if not work.is_complete:
                done = Part.nothing()
                for done in work.parts():
                    totals.add(done.results)
                    totals.skipped += done.skipped
                    totals.missed += done.missed
                meter.skip(done.read)
                self._quantize(work, done, totals, meter)
                self._write(work)
                work.complete(totals.to_dict())
            with unhindered():
                work.publish(self.overwrite, self._check_replaced, self._data_of)
        return totals

    def _data_of(self, path: Path) -> set[str]:
        """Return the names of files that go with what is replaced."""
        return self.target.replaced_data(path, {os.path.realpath(file) for file in self.files})

    def _check_replaced(self, path: Path) -> None:
        """Raise where what is at the destination by now must not be replaced."""
        check_destination(
            path,
            True,
            self.folder,
            self.files,
            partial(self.target.files_of_subfolders, self.source),
        )

    def unquantized(self, recipe: Recipe | None) -> tuple[UnquantizedTensor, ...]:
        """List what is not quantized with a recipe."""
        layers = planned(self.source, self.settings, recipe) or []
        return unquantized(self.source, self.target, layers, recipe)

    def fitted(self, meter: Meter) -> Recipe | None:
        """Return the recipe, with bit widths fitted to the budget if there is one."""
        if self.bits_per_weight is None:
            return self.recipe
        return self._fit(self.bits_per_weight, meter)

    def _fit(self, bits_per_weight: float, meter: Meter) -> Recipe:
        return Recipe.fit(
            self.source.reader(),
            bits_per_weight,
            [
                {**asdict(self.settings), "bit_width": width}
                for width in self.target.bit_widths(self.settings.zero_point)
            ],
            recipe=self.recipe,
            threads=self.threads,
            progress=meter.fitting,
            continue_on_error=self.continue_on_error,
            bits_of=self.target.stored_bits,
        )

    def _identity(self) -> dict[str, Any]:
        """What decides about the bytes of the results."""
        return {
            "version": __version__,
            "source": source_files(self.source),
            "kind": f"{self.target.name} in a folder" if self.folder else self.target.name,
            "batch_bytes": self.batch_bytes,
            **asdict(self.settings),
            "recipe": None if self.recipe is None else self.recipe.to_dict(),
            "bits_per_weight": self.bits_per_weight,
            "quality_floor": self.quality_floor,
        }

    def _quantize(self, work: Work, done: Part, totals: Totals, meter: Meter) -> None:
        """Quantize what is left of the source."""
        recipe = self.recipe
        if self.bits_per_weight is not None:
            recipe = work.fitted()
            if recipe is None:
                recipe = self._fit(self.bits_per_weight, meter)
                layers = planned(self.source, self.settings, recipe) or []
                self.target.check_plan(layers, self.source, self.settings)
                work.keep_fitted(recipe)
        count, read = done.batches, done.read
        skipped, missed = len(totals.skipped), len(totals.missed)
        source = self.source.reader(self.batch_bytes, skip=done.batches)

        def counted() -> Iterator[pa.RecordBatch]:
            nonlocal count, read
            for batch in source:
                count += 1
                read += weights_bytes(batch)
                yield batch

        stream = stream_within(
            self.target.bit_widths(self.settings.zero_point),
            meter.watch(pa.RecordBatchReader.from_batches(source.schema, counted())),
            Options(
                self.settings,
                continue_on_error=self.continue_on_error,
                metrics=True,
                sort=False,
                threads=arguments.thread_count(self.threads),
                kernel=arguments.kernel(),
            ),
            recipe,
            self.quality_floor,
            skipped=totals.skipped,
            missed=totals.missed,
        )
        dtype = self.target.scale_dtype(self.source, self.settings)
        for results in stream:
            self.target.check_results(pa.Table.from_batches([results]), self.source, dtype)
            said = totals.skipped[skipped:], totals.missed[missed:]
            work.add(Part(results, count, read, *said))
            skipped, missed = len(totals.skipped), len(totals.missed)
            totals.add(results)
        if totals.layers == 0:
            raise ValueError(
                f"{self.source.location}: no layer was quantized: all failed, or are left out, as "
                "the recipe has it. recipe='all' leaves out only what the format cannot quantize"
            )

    def _write(self, work: Work) -> None:
        results = pa.Table.from_batches([part.results for part in work.parts()])
        self.target.write(results, self.source, work.new_output(), self.settings, self.folder)
