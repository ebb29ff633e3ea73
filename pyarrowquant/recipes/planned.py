"""Layers of a model, and what a recipe makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyarrowquant._core.layout import Layout
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.shapes import columns_of, product
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule


@dataclass(frozen=True)
class PlannedLayer:
    """What becomes of a layer of the source.

    Attributes
    ----------
    name : str or None
        None where it cannot be read.
    shape : tuple of int
    settings : Settings or None
        None for a layer that is left out.
    rule : Rule or None
        What of the recipe decides about it; None for the default, and without a recipe.
    """

    name: str | None
    shape: tuple[int, ...]
    settings: Settings | None
    rule: Rule | None = None

    @property
    def columns(self) -> int:
        return columns_of(self.shape)

    @property
    def weights(self) -> int:
        return product(self.shape)


@dataclass(frozen=True)
class PlannedLayout(Layout):
    """How a layer will be coded."""

    zero_point: str
    scale_dtype: str
    encoding: str


def layout_of(layer: PlannedLayer) -> PlannedLayout | None:
    """Return how a layer will be coded; None for one that is left out."""
    settings = layer.settings
    if settings is None or layer.name is None:
        return None
    return PlannedLayout(
        layer.name,
        layer.shape,
        settings.bit_width,
        settings.group_size,
        settings.zero_point,
        settings.scale_dtype,
        settings.encoding,
    )


def plan_layer(
    name: str | None, shape: Sequence[int], settings: Settings, recipe: Recipe | None
) -> PlannedLayer:
    """Find what a recipe makes of a layer."""
    if recipe is None or name is None or None in shape:
        return PlannedLayer(name, tuple(shape), settings)
    rule, applied = recipe.decisions.applied(settings, name, shape)
    return PlannedLayer(name, tuple(shape), applied, None if rule is recipe.default else rule)
