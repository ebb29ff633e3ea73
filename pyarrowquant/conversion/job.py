"""A run of `quantize`: read, quantize part by part, write, and give the output its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant import __version__
from pyarrowquant._core.settings import Settings
from pyarrowquant.conversion.destination import check_destination
from pyarrowquant.conversion.engines import Engine, LocalEngine
from pyarrowquant.conversion.making_files import Deliveries, MakingFiles, tensors_of
from pyarrowquant.conversion.measuring import Measuring
from pyarrowquant.conversion.partial.identity import check_unchanged, source_files
from pyarrowquant.conversion.partial.interrupted import Continued, continued
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.results import (
    KeptResults,
    PlacedResults,
    ResultsOfRun,
    are_placed,
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
from pyarrowquant.conversion.quantizing import Quantizing, fitting, layouts_of
from pyarrowquant.conversion.signals import unhindered
from pyarrowquant.conversion.size import FileSize
from pyarrowquant.conversion.source import weights_bytes as bytes_of_model
from pyarrowquant.conversion.splitting import OutputFile, choices_of
from pyarrowquant.conversion.stage import Run
from pyarrowquant.conversion.stores.files_in_store import FilesInStore
from pyarrowquant.conversion.stores.landing import Landing
from pyarrowquant.conversion.stores.stored_results import StoredResults
from pyarrowquant.conversion.stores.stored_work import StoredWork, continued_in_store
from pyarrowquant.conversion.taking import Taking
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.conversion.unquantized import (
    UnquantizedTensor,
    unquantized,
    unusable_layers,
)
from pyarrowquant.conversion.viewing import View, Viewed
from pyarrowquant.errors import LayerError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._fused import sets_of
from pyarrowquant.formats._gguf_split import parts_beside
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import Outline, OutlinedFile
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.budget import BitsPerWeight, Budget
from pyarrowquant.recipes.fitting import check_budget, chosen, to_measure
from pyarrowquant.recipes.measuring import Costs
from pyarrowquant.recipes.plan import wider
from pyarrowquant.recipes.planned import PlannedLayer, layout_of
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


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes
    ----------
    view : View
    viewed : Viewed
        The source.
    files : list of Path
        What is read, and so must not be replaced.
    landing : Landing
        Of the destination.
    folder : bool
        Whether the destination is a folder.
    settings : Settings
        For what the recipe does not say.
    recipe : Recipe or None
    origin : Origin
        What the recipe comes from, and the importance of columns.
    layers : list of PlannedLayer
        What becomes of all layers of the source, but for the budget.
    budget : Budget or None
        What bit widths or encodings are fitted to.
    quality_floor : dict or None
    continue_on_error : bool
    threads : int or None
    engine : Engine
    batch_bytes : int
    overwrite : bool
    """

    view: View
    viewed: Viewed
    files: list[Path]
    landing: Landing
    folder: bool
    settings: Settings
    recipe: Recipe | None
    origin: Origin
    layers: list[PlannedLayer]
    budget: Budget | None
    quality_floor: dict[str, float] | None
    continue_on_error: bool
    threads: int | None
    engine: Engine
    batch_bytes: int
    overwrite: bool

    @property
    def source(self) -> Model:
        """What is read, with the names and rows of the format."""
        return self.viewed.model

    @property
    def target(self) -> Format:
        return self.view.target

    @property
    def is_of_tensors(self) -> bool:
        """Whether the output is tensors by themselves, which no engine loads as a model."""
        return self.target.loading_problem(self.source) is not None

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

    def split_files(self, layers: Sequence[PlannedLayer]) -> tuple[OutputFile, ...]:
        """List the files that the output is split into, if it is and layers are such."""
        if self.origin.split is None:
            return ()
        return tuple(OutputFile(file.name, file.size) for file in self.files_of(layers))

    def files_of(self, layers: Sequence[PlannedLayer]) -> Sequence[OutlinedFile]:
        """List the files that get what layers become."""
        layouts = [layout for layer in layers if (layout := layout_of(layer))]
        outline = self.target.outline(layouts, self.source, self.settings, self.origin)
        return outline.files

    def check_split(self) -> None:
        """Raise where a tensor may get a type for which a file of the split has no room.

        With a budget, layers are planned with the largest type that it may choose.
        """
        self.split_files([self._widest(layer) for layer in self.layers])

    def _widest(self, layer: PlannedLayer) -> PlannedLayer:
        """Return a layer with what a floor may choose for it at most."""
        if self.quality_floor is None or layer.settings is None:
            return layer
        return replace(layer, settings=self._widened(layer.settings, layer.shape)[-1])

    @property
    def destination(self) -> Path:
        """Where the output is made."""
        return self.landing.path

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

    def _data_of(self, path: Path) -> set[str]:
        """Return the names of files that go with what is replaced."""
        if self.origin.split is not None:
            return {file.name for file in parts_beside(path, self.origin.split.name)}
        return self.target.replaced_data(path, {os.path.realpath(file) for file in self.files})

    def _check_replaced(self, path: Path) -> None:
        """Raise where what is at the destination by now must not be replaced."""
        check_destination(
            path,
            True,
            self.folder,
            self.files,
            partial(self.target.copied_files, self.source),
        )

    def continued(self) -> Continued | None:
        """Return what an interrupted run of the same job has left to go on from."""
        if self.landing.store is not None:
            return continued_in_store(self.landing, self._identity())
        return continued(self.destination, self._identity(), self._are_placed)

    @property
    def _are_placed(self) -> bool:
        """Whether results get their places in the output as they come."""
        has_floor = self.quality_floor is not None
        return are_placed(self.target, self.source, self.continue_on_error, has_floor)

    def unquantized(self, failed: Sequence[LayerError]) -> tuple[UnquantizedTensor, ...]:
        """List what is not quantized, some layers for they failed."""
        return unquantized(self.source, self.target, self.layers, self.recipe, failed)

    def fitted(self, meter: Meter) -> tuple[Recipe | None, list[LayerError]]:
        """Return the recipe, with bit widths fitted to the budget if there is one.

        Also return the errors of layers that could not be measured. This process measures them.
        """
        if not self._is_fitted:
            return self.recipe, []
        with LocalEngine(self.threads).started(self.view, self.viewed) as run:
            return self._fit(run, meter)

    @property
    def _is_fitted(self) -> bool:
        """Whether layers are measured first: for a budget, and where a floor is for several."""
        if self.budget is not None:
            return True
        names = [layer.name for layer in self.layers if layer.settings and layer.name]
        return self.quality_floor is not None and bool(sets_of(names, self.target.one_scheme))

    def _fit(self, run: Run, meter: Meter) -> tuple[Recipe, list[LayerError]]:
        """Have the choices of layers measured, and choose."""
        rows = [(layer.name, layer.shape) for layer in self.layers]
        found = to_measure(rows, self._choices(), self.settings, self.recipe)
        weigh = self.target.error_weights(self.source)
        if weigh is not None:
            for layer in found.values():
                layer.weight = weigh(layer.name, layer.shape)
        check_budget(found, self.budget, self.target.one_scheme)
        measuring = Measuring(
            self.batch_bytes,
            {name: layer.choices for name, layer in found.items()},
            self.quality_floor or {},
            self.continue_on_error,
            self.origin.importance,
        )
        costs: dict[str, Costs] = {}
        skipped: list[LayerError] = []
        with closing(run(measuring, 0, meter)) as outcomes:
            for outcome in outcomes:
                costs |= outcome.costs
                skipped += outcome.skipped
        fit = chosen(
            found,
            costs,
            self.budget,
            "squared_error" if weigh is None else "relative_error",
            self.quality_floor,
            self.target.one_scheme,
        )
        return Recipe.chosen(fit.chosen, fit.expected), skipped

    def _choices(self) -> Callable[[Sequence[int], Settings], dict[Settings, int]]:
        """Return what says what may be chosen for a layer, and the bits it takes of the budget."""
        budget = self.budget
        choices = choices_of(self.target, self.source, self.origin)

        def of_layer(shape: Sequence[int], settings: Settings) -> dict[Settings, int]:
            if budget is None:
                widened = self._widened(settings, shape)
                return {each: self.target.stored_bits(shape, each) for each in widened}
            found = choices(settings, shape)
            return {each: budget.of_layer(self.target.stored_bits(shape, each)) for each in found}

        return of_layer

    def _fitting(self, settings: Settings, shape: Sequence[int]) -> Settings | None:
        return fitting(self.target, self.source, self.settings, settings, shape)

    def _widened(self, settings: Settings, shape: Sequence[int]) -> list[Settings]:
        """Return what a floor may choose for a layer, the narrowest first."""
        found, following = [settings], wider(settings, self.target.bit_widths)
        while following is not None and (fitting := self._fitting(following, shape)) is not None:
            found.append(fitting)
            following = wider(following, self.target.bit_widths)
        return found

    def _identity(self) -> dict[str, Any]:
        """What decides about the bytes of the results."""
        importance = self.origin.importance
        return {
            "version": __version__,
            "source": source_files(self.source),
            "kind": f"{self.target.name} in a folder" if self.folder else self.target.name,
            "double": self.target.double,
            "batch_bytes": self.batch_bytes,
            **asdict(self.settings),
            "recipe": None if self.recipe is None else self.recipe.to_dict(),
            "mix": self.origin.mix,
            "importance": None if importance is None else [importance.name, importance.digest],
            "rescale": self.origin.rescaled,
            "bits_per_weight": (
                self.budget.value if isinstance(self.budget, BitsPerWeight) else None
            ),
            "split": None if self.origin.split is None else self.origin.split.size,
            "size": self.budget.size if isinstance(self.budget, FileSize) else None,
            "quality_floor": self.quality_floor,
        }

    def _recipe_of(
        self, work: Work, run: Run, meter: Meter
    ) -> tuple[Recipe | None, list[LayerError]]:
        """Return the recipe, fitted if it has to be and not fitted already, and what failed."""
        if not self._is_fitted:
            return self.recipe, []
        found = work.fitted()
        if found is None:
            found = self._fit(run, meter)
            layers = planned(self.source, self.settings, found[0])
            self.target.check_plan(layers, self.source, self.settings)
            work.keep_fitted(*found)
        return found

    def _outline(self, recipe: Recipe | None) -> Outline:
        """Return what the output will be."""
        layouts = layouts_of(self._quantizing(recipe), self.source)
        return self.target.outline(layouts, self.source, self.settings, self.origin)

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
        results = self._results(work, outline, recipe)
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

    def _results(self, work: Work, outline: Outline | None, recipe: Recipe | None) -> ResultsOfRun:
        """Return where results go."""
        if outline is None:
            return KeptResults(work, partial(self._write, recipe))
        if isinstance(work, StoredWork):
            return StoredResults(work, outline, self.folder)
        return PlacedResults(work, outline, self.folder)

    def _quantizing(self, recipe: Recipe | None) -> Quantizing:
        """Return what becomes of batches, with a recipe that is fitted if it has to be."""
        return Quantizing(
            self.target,
            self.batch_bytes,
            self.settings,
            recipe,
            self.quality_floor,
            self.continue_on_error,
            self.origin.importance,
        )

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
