"""What is to be done, and what follows from that before anything is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pyarrowquant import __version__
from pyarrowquant._core.settings import Settings
from pyarrowquant.conversion.destination import check_destination
from pyarrowquant.conversion.engines import Engine
from pyarrowquant.conversion.partial.identity import source_files
from pyarrowquant.conversion.partial.interrupted import Continued, continued
from pyarrowquant.conversion.partial.results import are_placed
from pyarrowquant.conversion.quantizing import Quantizing, layouts_of
from pyarrowquant.conversion.size import FileSize
from pyarrowquant.conversion.splitting import OutputFile
from pyarrowquant.conversion.stores.landing import Landing
from pyarrowquant.conversion.stores.stored_work import continued_in_store
from pyarrowquant.conversion.unquantized import UnquantizedTensor, unquantized
from pyarrowquant.conversion.viewing import View, Viewed
from pyarrowquant.errors import LayerError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._gguf_split import parts_beside
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import Outline, OutlinedFile
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.budget import BitsPerWeight, Budget
from pyarrowquant.recipes.planned import PlannedLayer, layout_of
from pyarrowquant.recipes.recipe import Recipe


@dataclass(frozen=True)
class Task:
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

    @property
    def destination(self) -> Path:
        """Where the output is made."""
        return self.landing.path

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
            partial(self.target.files_beside, self.source),
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
            "pre_tokenizer": self.view.pre_tokenizer,
            "split": None if self.origin.split is None else self.origin.split.size,
            "size": self.budget.size if isinstance(self.budget, FileSize) else None,
            "quality_floor": self.quality_floor,
        }

    def _outline(self, recipe: Recipe | None) -> Outline:
        """Return what the output will be."""
        layouts = layouts_of(self._quantizing(recipe), self.source)
        return self.target.outline(layouts, self.source, self.settings, self.origin)

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
