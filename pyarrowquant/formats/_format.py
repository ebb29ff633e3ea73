"""What a format is to a conversion."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from pyarrowquant._core.bounds import BIT_WIDTHS
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.group_sizes import SHARED, in_row
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.shapes import product
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._layers import INTEGER_ONLY
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import Outline
from pyarrowquant.formats._rules import preceded
from pyarrowquant.formats._sensitivity import decoder_weights
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import CodedTensor, Tensor
from pyarrowquant.recipes.bits import stored_bits
from pyarrowquant.recipes.planned import PlannedLayer, PlannedLayout, layout_of
from pyarrowquant.recipes.presets import SENSITIVE
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule


class Format(ABC):
    """A kind of file or folder that quantized models are written to.

    Attributes
    ----------
    name : str
        As in ``to=``.
    encodings : tuple of str
        Those of layers that it holds.
    usual : Settings
        What is best for it, where the model and the user say nothing else.
    group_sizes : tuple of int
        Usual ones, the largest first, of which the first is taken that fits; none where rows may
        end with a shorter group.
    most_unfit : float
        The part of all weights whose rows may be no whole groups of a size that fits.
    kept : tuple of Rule
        For layers that it does not quantize: they stay as they are.
    copies_files : bool
        Whether other files of a model's folder go along.
    short_groups : tuple of int or None
        Numbers of columns of rows that are shorter than a group; None for any.
    reserved_names : frozenset of str
        Names that no tensor can have.
    checks_kept_names : bool
        Whether tensors that are kept have names that layers must not take.
    longest_name : int or None
        Bytes of names that all engines load.
    is_of_models : bool
        Whether engines load what is written as a model, and not as tensors of any.
    loads_by_class : bool
        Whether its engine loads a model whose config.json does not say its type, if the user knows
        the class.
    knows_architectures : bool
        Whether it sees to it itself that a model lacks nothing, by what its engine loads.
    engine : str
        What loads such models.
    takes_rescaled : bool
        Whether it holds all that a Hugging Face folder computes with, so that factors may be moved
        from one tensor to another.
    has_float32_norms : bool
        Whether norms of such a folder become float32.
    unit_layer_scales : bool
        Whether it has no place for a scale of a whole layer, which then is 1.
    double : bool
        Whether scales are codes themselves.
    splits : bool
        Whether an output may be split into several files.
    mixes : tuple of str
        Names of recipes that it makes for a model: mixes of llama.cpp, or schemes of
        compressed-tensors.
    """

    name: str
    encodings: ClassVar[tuple[str, ...]] = INTEGER_ONLY
    usual: ClassVar[Settings] = Settings(method="mse")
    group_sizes: ClassVar[tuple[int, ...]] = ()
    most_unfit: ClassVar[float] = 0.01
    kept: ClassVar[tuple[Rule, ...]] = ()
    copies_files: ClassVar[bool] = False
    short_groups: ClassVar[tuple[int, ...] | None] = None
    reserved_names: ClassVar[frozenset[str]] = frozenset()
    checks_kept_names: ClassVar[bool] = True
    longest_name: ClassVar[int | None] = None
    is_of_models: ClassVar[bool] = False
    loads_by_class: ClassVar[bool] = False
    knows_architectures: ClassVar[bool] = False
    engine: ClassVar[str] = ""
    takes_rescaled: ClassVar[bool] = False
    has_float32_norms: ClassVar[bool] = False
    unit_layer_scales: ClassVar[bool] = False
    double: bool = False
    splits: ClassVar[bool] = False
    mixes: ClassVar[tuple[str, ...]] = ()

    def is_folder(self, destination: Path) -> bool:
        """Whether a destination is a folder."""
        return False

    def doubled(self) -> Format:
        """Return the format with scales that are codes themselves, or raise where it has none."""
        raise UsageError(
            f"double=True is for the scales of to='bitsandbytes', not for to={self.name!r}. Leave "
            "it out"
        )

    def check_destination(self, destination: Path) -> None:
        """Raise where what is written cannot be used at a destination, or an extra is missing."""

    def defaults(self, model: Model) -> Settings:
        """Return the settings that engines take where the user says nothing else."""
        return replace(self.usual, scale_dtype=self.scale_dtype(model, self.usual))

    def viewed(self, model: Model, pre_tokenizer: str | None) -> Model:
        """Return the model with the names and rows that engines want, where they differ.

        Parameters
        ----------
        model : Model
        pre_tokenizer : str or None
            What the user says of its tokenizer.
        """
        if pre_tokenizer is not None:
            raise UsageError(
                f"pre_tokenizer={pre_tokenizer!r} is for the tokenizers of Hugging Face folders to "
                f"gguf, not for '{model.location}' to {self.name}. Leave it out"
            )
        return model

    def loading_problem(self, model: Model) -> str | None:
        """Say why engines do not load what is written of a model as one; None where they do.

        Parameters
        ----------
        model : Model
            As of `viewed`.
        """
        return None

    def check_kept(self, model: Model, quantized: Collection[str | None]) -> None:
        """Raise where weights of the other tensors are nothing that an engine computes with."""

    def as_written(self, model: Model, names: Collection[str]) -> Model:
        """Return the model with the names and rows of a file that was made of it.

        Parameters
        ----------
        model : Model
        names : collection of str
            Of the tensors of that file.
        """
        return self.viewed(model, None)

    def scale_dtype(self, model: Model, settings: Settings) -> str:
        """Return the dtype that scales are stored in."""
        return settings.scale_dtype

    def default_recipe(self, model: Model) -> Recipe:
        """Return what leaves out, or spares, what engines want so."""
        return Recipe(SENSITIVE)

    def budget_recipe(self, model: Model) -> Recipe:
        """Return what of the default recipe holds where a budget chooses the bits."""
        return self.default_recipe(model)

    def recipe(self, model: Model, recipe: Recipe | None, own: Recipe) -> Recipe | None:
        """Return the recipe, or the format's own where there is none, behind rules for the kept.

        Parameters
        ----------
        model : Model
        recipe : Recipe or None
        own : Recipe
            As of `default_recipe` or `budget_recipe`.
        """
        return preceded(self.kept, own if recipe is None else recipe)

    def default_mix(self, model: Model) -> str | None:
        """Return which of `mixes` a model gets where the user says nothing of bits."""
        return None

    def mix(self, name: str, model: Model, has_importance: bool) -> Recipe:
        """Return one of `mixes` for a model, of which the importance of columns may be known."""
        return Recipe.preset(name).resolved

    def warn_of_mix(self, mix: str | None, layers: Sequence[PlannedLayer]) -> None:
        """Warn of layers that engines do not load as one of `mixes` has them."""

    def instead(self, settings: Settings, shape: Sequence[int]) -> Settings:
        """Return the settings for a layer of this shape, where these cannot be had."""
        return settings

    def settings_problem(self, settings: Settings) -> str | None:
        """Say why it holds no layer of these settings; None where that is up to the layer."""
        return None

    def mixed_problem(self, layers: Sequence[PlannedLayer], model: Model) -> str | None:
        """Say what keeps it from having different bits for these layers."""
        return None

    def bit_widths(self, zero_point: str) -> Sequence[int]:
        """Return the bit widths that it holds with zero-points of a kind."""
        return BIT_WIDTHS

    def candidates(self, settings: Settings, shape: Sequence[int]) -> list[Settings]:
        """Return what a budget of bits may choose in place of settings, the largest last."""
        if settings.encoding != INTEGER:  # which a rule of a recipe says
            return [settings]
        widths = self.bit_widths(settings.zero_point)
        return [replace(settings, bit_width=width) for width in widths]

    def joined_as(self, name: str) -> str | None:
        """Return a name of the layer that its engine makes of this one and others.

        Such layers have one scale of the whole layer. None for a layer that stands alone.
        """
        return None

    def one_scheme(self, name: str) -> str | None:
        """Return a name of the layers that its engine wants the same settings for, or None."""
        return None

    def error_weights(self, model: Model) -> Callable[[str, Sequence[int]], float] | None:
        """Return what a budget multiplies squared relative errors of layers by.

        None where squared errors of layers count as they are: by default of all models but
        decoders.
        """
        return decoder_weights(tensor.name for tensor in model.all_tensors)

    def lacks(self, tensor: Tensor) -> str | None:
        """Say of what kind a tensor is that the format has no place for; None where it has one."""
        return None

    def keeps(self, tensor: Tensor, model: Model) -> bool:
        """Whether a tensor that is not quantized goes into the output."""
        return True

    def kept_bytes(self, tensor: Tensor, model: Model) -> int:
        """Return what a tensor takes in the output that is not quantized; codes are decoded."""
        if isinstance(tensor, CodedTensor):
            return 4 * product(tensor.shape)
        return tensor.stored_bytes

    def names_of(self, layer: Coded) -> Iterable[str]:
        """Return the names of the tensors that a layer becomes, which must differ from all."""
        return [layer.name]

    def spools(self, model: Model) -> bool:
        """Whether what is written lies on the disk twice while it is written."""
        return False

    def stored_bits(self, shape: Sequence[int], settings: Settings) -> int:
        """Return the bits that a layer takes, as a budget counts them."""
        return stored_bits(shape, settings)

    def takes_shape(self, layer: PlannedLayer) -> bool:
        """Whether a layer may be quantized as far as its shape goes; else it stays as it is."""
        if layer.settings is None:
            return True
        if 0 in layer.shape:
            return False
        group_size = layer.settings.group_size
        if group_size == -1 or group_size in SHARED:
            return True
        size = in_row(group_size)
        if layer.columns < size:  # where a row is a group
            return self.short_groups is None or layer.columns in self.short_groups
        return layer.columns % size == 0

    def fitting_group_size(self, layers: Sequence[PlannedLayer]) -> int:
        """Return the usual group size that fits the layers."""
        wanted = [layer for layer in layers if layer.settings is not None]
        most = sum(math.prod(layer.shape) for layer in wanted)
        for group_size in self.group_sizes:
            settings = replace(self.usual, group_size=group_size)
            with_it = [replace(layer, settings=settings) for layer in wanted]
            unfit = sum(math.prod(layer.shape) for layer in with_it if not self.takes_shape(layer))
            if unfit <= self.most_unfit * most:
                return group_size
        return in_row(self.usual.group_size)

    def check_plan(self, layers: Iterable[PlannedLayer], model: Model, settings: Settings) -> None:
        """Raise where the format or its engine cannot take these layers, before any work."""
        planned = [layout for layer in layers if (layout := layout_of(layer))]
        self.check_layouts(planned, model, self.scale_dtype(model, settings))

    @abstractmethod
    def check_layouts(
        self, layers: Sequence[PlannedLayout], model: Model, scale_dtype: str
    ) -> None:
        """Raise where it cannot hold layers that are coded like this."""

    @abstractmethod
    def check_results(self, results: pa.Table, model: Model, scale_dtype: str) -> None:
        """Raise where it cannot hold a layer; scales are stored in this dtype."""

    def outlines(self, model: Model) -> bool:
        """Whether the places of layers in the output of a model are known before any results."""
        return False

    def outline(
        self,
        layers: Sequence[PlannedLayout],
        model: Model,
        settings: Settings,
        origin: Origin,
    ) -> Outline:
        """Return what the output of a model will be, of those that it `outlines`.

        Parameters
        ----------
        layers : sequence of PlannedLayout
            All that are quantized.
        model : Model
        settings : Settings
            Of layers, where a recipe says nothing else.
        origin : Origin
        """
        raise NotImplementedError

    def write(
        self,
        results: pa.Table,
        model: Model,
        destination: Path,
        settings: Settings,
        folder: bool,
    ) -> None:
        """Write results, and the layers of the model that they leave out where it has those.

        Of models that it `outlines` the outline is written instead.

        Parameters
        ----------
        results : pyarrow.Table
            In the order of the model.
        model : Model
        destination : Path
            Does not exist yet.
        settings : Settings
            Of the results, where a recipe said nothing else.
        folder : bool
            Whether the destination is a folder.
        """
        raise NotImplementedError

    def copied_files(self, model: Model) -> Collection[Path]:
        """List what is taken over from the folder of a model, relative to it.

        Raises
        ------
        FileNotFoundError, ValueError
            A file of the folder is missing, or cannot be taken over.
        """
        return set()

    def file_names(self, model: Model) -> Iterable[str]:
        """Return names of files that are made in a folder, but for what all models have."""
        return []

    def files_beside(self, model: Model) -> set[Path]:
        """Return what a folder gets beside weights and config.json, relative to it."""
        return {*self.copied_files(model), *map(Path, self.file_names(model))}

    def replaced_data(self, destination: Path, sources: Collection[str]) -> set[str]:
        """List files that go when a destination is replaced, but for the sources."""
        return set()

    def files(self, destination: Path) -> Iterable[Path]:
        """List what was written."""
        return destination.rglob("*") if destination.is_dir() else [destination]
