"""A run of `quantize`: read, quantize part by part, write, and give the output its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant.conversion.engines import LocalEngine
from pyarrowquant.conversion.fitting_bits import fit, is_fitted, widest
from pyarrowquant.conversion.making_files import Deliveries, MakingFiles, tensors_of
from pyarrowquant.conversion.partial.identity import check_unchanged
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.results import (
    KeptResults,
    PlacedResults,
    ResultsOfRun,
    packed_in,
)
from pyarrowquant.conversion.partial.shared_folder import (
    FilesInFolder,
    SharedFolder,
    SharedOutput,
    folder_for_files,
)
from pyarrowquant.conversion.partial.work import Work, warn
from pyarrowquant.conversion.placing import Placing
from pyarrowquant.conversion.planning import planned
from pyarrowquant.conversion.progress import Meter, Step
from pyarrowquant.conversion.quantizing import Quantizing, layouts_of
from pyarrowquant.conversion.signals import unhindered
from pyarrowquant.conversion.size import FileSize
from pyarrowquant.conversion.source import weights_bytes as bytes_of_model
from pyarrowquant.conversion.stage import Run
from pyarrowquant.conversion.stores.files_in_store import FilesInStore
from pyarrowquant.conversion.stores.stored_results import StoredResults
from pyarrowquant.conversion.stores.stored_work import StoredWork
from pyarrowquant.conversion.taking import Taking
from pyarrowquant.conversion.task import Task
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.conversion.unquantized import unusable_layers
from pyarrowquant.errors import LayerError
from pyarrowquant.formats._gguf_split import parts_beside
from pyarrowquant.formats._outline import Outline
from pyarrowquant.recipes.recipe import Recipe


@dataclass(frozen=True)
class Written:
    """What a run has written.

    Attributes
    ----------
    totals : Totals
    name : str
        Of the output; of one that is split the first file's.
    bytes : int
    """

    totals: Totals
    name: str
    bytes: int


class Job(Task):
    """A task that is done, or checked as far as that goes without doing it."""

    def run(self, resume: bool, tell: Callable[[Step], object] | None) -> Written:
        """Do it all, or what an interrupted run of the same job has left to do."""
        meter = Meter(bytes_of_model(self.source), tell)
        identity = self._identity()
        with self._work(identity, resume) as work, self._reading(identity):
            totals = Totals.from_dict(work.totals) if work.is_complete else Totals()
            if not work.is_complete:
                quantized = {layer.name for layer in self.layers if layer.settings is not None}
                self.target.check_kept(self.source, quantized)
                with self.engine.started(self.view, self.viewed) as run:
                    totals = self._quantize(work, run, meter)
                check_unchanged(self.source, identity["source"])
                work.complete(totals.to_dict())
            # What is sent to a store may take long, and is not broken by an interrupt.
            with unhindered() if self.landing.store is None else nullcontext():
                work.publish(self.overwrite, self._check_replaced, self._data_of)
            written = self._written(work)
        return Written(totals, *written)

    @contextmanager
    def _reading(self, identity: dict[str, Any]) -> Iterator[None]:
        """Say which file has changed, where that may be why reading fails, or what was read."""
        try:
            yield
        except Exception:
            check_unchanged(self.source, identity["source"])
            raise

    def fitted(self, meter: Meter) -> tuple[Recipe | None, list[LayerError]]:
        """Return the recipe, with bit widths fitted to the budget if there is one.

        Also return the errors of layers that could not be measured. This process measures them.
        """
        if not is_fitted(self):
            return self.recipe, []
        with LocalEngine(self.threads).started(self.view, self.viewed) as run:
            return fit(self, run, meter)

    def check_split(self) -> None:
        """Raise where a tensor may get a type for which a file of the split has no room.

        With a budget, layers are planned with the largest type that it may choose.
        """
        self.split_files([widest(self, layer) for layer in self.layers])

    def _work(self, identity: dict[str, Any], resume: bool) -> Work:
        if self.landing.store is None:
            return Work(self.destination, identity, resume)
        return StoredWork(self.landing, identity, resume, self.folder, self.overwrite)

    def _written(self, work: Work) -> tuple[str, int]:
        """Return the name of the output, of one that is split the first file's, and its bytes."""
        if isinstance(work, StoredWork):
            sizes = {name: stamp.bytes for name, stamp in work.files.items()}
        elif self.origin.split is None:
            files = self.target.files(self.destination)
            sizes = {str(file): file.stat().st_size for file in files if file.is_file()}
        else:
            parts = parts_beside(self.destination, self.origin.split.name)
            sizes = {part.name: part.stat().st_size for part in parts}
        name = self.destination.name if self.origin.split is None else min(sizes)
        return name, sum(sizes.values())

    def _recipe_of(
        self, work: Work, run: Run, meter: Meter
    ) -> tuple[Recipe | None, list[LayerError]]:
        """Return the recipe, fitted if it has to be and not fitted already, and what failed."""
        if not is_fitted(self):
            return self.recipe, []
        found = work.fitted()
        if found is None:
            found = fit(self, run, meter)
            layers = planned(self.source, self.settings, found[0])
            self.target.check_plan(layers, self.source, self.settings)
            work.keep_fitted(*found)
        return found

    def _quantize(self, work: Work, run: Run, meter: Meter) -> Totals:
        """Have all quantized that is not yet, and the output written, but for what a store has."""
        recipe, failed = self._recipe_of(work, run, meter)
        quantizing = self._quantizing(recipe)
        outline = self._outline(recipe) if self._are_placed else None
        before = Done(0, 0, Totals(skipped=failed))
        is_counted = False
        if outline is not None:
            if self._is_made_by_files(work, outline, run.fewest_files):
                self._make_files(work, outline, quantizing, run, meter)
                is_counted = True
            if work.done_in_files is not None:
                before = replace(work.done_in_files, batches=0)
                quantizing = replace(quantizing, left_out=self._tensors_in(work.files, outline))
                outline = outline.without(work.files)
                if not outline.files:
                    return self._finish(work, outline, before.totals)
        results = self._results(work, outline, quantizing)
        done = results.done or before
        if not is_counted:
            meter.skip(done.read)
        taking = Taking(results, quantizing, self.source, done, meter)
        has_workers = run.fewest_files is not None
        shared = results if isinstance(results, PlacedResults) and has_workers else None
        if shared is None or not self._is_placed(work, taking, run, meter):
            with closing(run(quantizing, taking.done.batches, meter)) as outcomes:
                # An interrupt does not wait until a file is sent.
                taking.take(outcomes, beside=self.landing.store is None)
        if shared is not None and shared.added and (shared.taken or work.files):
            warn(
                f"Results of {shared.added} layers came through this process, as some workers "
                f"cannot write in '{work.kept_in}'. Give all of them its folder under this name"
            )
        self._check_any(done.totals)
        output = results.finish(done.totals)
        if isinstance(self.budget, FileSize):
            self.budget.check(output.stat().st_size)
        return done.totals

    def _is_made_by_files(self, work: Work, outline: Outline, fewest: int | None) -> bool:
        """Whether each file is made as a whole, by whoever makes it.

        For a store that is so where there are several; of a single file on a cluster several
        workers make results. In a folder of this machine it is so on a cluster that makes them
        sooner thus, if workers see it; an interrupted run goes on as it was begun.
        """
        if not self.folder and self.origin.split is None:
            return False
        count = len(outline.files)
        if self.landing.store is not None:
            return count > 1 or isinstance(self.engine, LocalEngine)
        if work.done_in_output() is not None:
            return False
        return bool(work.files) or (fewest is not None and count >= max(2, fewest))

    def _is_placed(self, work: Work, taking: Taking, run: Run, meter: Meter) -> bool:
        """Have workers write what is left to its places in the output, or else give it.

        False where something that they have written is not there. So what is left comes from them.
        """
        taking.begin()
        with folder_for_files(work) as folder:
            output = SharedOutput(SharedFolder(str(folder)), str(work.output))
            placing = Placing(taking.quantizing, self.origin, output)
            with closing(run(placing, taking.done.batches, meter)) as outcomes:
                return taking.take(outcomes, beside=True)

    def _make_files(
        self, work: Work, outline: Outline, quantizing: Quantizing, run: Run, meter: Meter
    ) -> None:
        """Have files made that are not yet, by whoever can put them where they go."""
        with self._deliveries(work, outline) as files:
            done = files.done or Done(0, 0, Totals())
            meter.skip(done.read)
            making = MakingFiles(quantizing, self.origin, files.depot, files.left)
            with closing(run(making, 0, meter)) as made:
                for file in made:
                    if file.stamp is None and work.files:  # others make some
                        continue
                    if file.stamp is None or not files.take(file.name, file.stamp):
                        break
                    done.totals.include(file.totals)
                    done = Done(done.batches + 1, done.read + file.read, done.totals)
                    work.note_file(file.name, file.stamp, done)

    @contextmanager
    def _deliveries(self, work: Work, outline: Outline) -> Iterator[Deliveries]:
        if isinstance(work, StoredWork):
            yield FilesInStore(work, outline)
            return
        with folder_for_files(work) as folder:
            yield FilesInFolder(work, outline, self.folder, folder)

    def _tensors_in(self, names: Collection[str], outline: Outline) -> frozenset[str]:
        """Name the tensors that were read for files."""
        found = tensors_of(outline, self.source)
        return frozenset(tensor.name for name in names for tensor in found.get(name, ()))

    def _finish(self, work: Work, outline: Outline, totals: Totals) -> Totals:
        """Write what is left of an output whose files with weights are whole."""
        self._check_any(totals)
        output = work.output_of_files()
        if self.folder:
            output.mkdir(exist_ok=True)
        outline.finish(output)
        return totals

    def _results(self, work: Work, outline: Outline | None, quantizing: Quantizing) -> ResultsOfRun:
        """Return where results go."""
        if outline is None:
            write = partial(self._write, quantizing.recipe)
            return KeptResults(work, write, quantizing.layers_in)
        if isinstance(work, StoredWork):
            return StoredResults(work, outline, self.folder)
        return PlacedResults(work, outline, self.folder)

    def _check_any(self, totals: Totals) -> None:
        """Raise where nothing was quantized."""
        if totals.layers == 0:
            raise ValueError(
                f"{self.source.location}: no layer was quantized: there is none, all failed, or "
                "are left out, as the recipe has it. recipe='all' leaves out only what the format "
                "cannot quantize"
            )

    def _write(
        self, recipe: Recipe | None, results: pa.Table, output: Path, totals: Totals
    ) -> None:
        """Write the output of all results, as it was planned but for what a floor chose."""
        source = self.source.without(unusable_layers(totals.skipped))
        if not self.target.outlines(source):
            self.target.write(results, source, output, self.settings, self.folder)
            return
        packed = {layer.name: layer for layer in packed_in(results)}
        layouts = [
            replace(
                layout,
                bits=packed[layout.name].bits,
                group_size=packed[layout.name].group_size,
                encoding=packed[layout.name].encoding,
            )
            for layout in layouts_of(self._quantizing(recipe), self.source)
            if layout.name in packed
        ]
        outline = self.target.outline(layouts, source, self.settings, self.origin)
        if self.folder:
            output.mkdir()
        outline.write(output, packed)
