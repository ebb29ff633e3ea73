"""Rules of formats, and recipes that they come before."""

from __future__ import annotations

from collections.abc import Sequence

from pyarrowquant.reading.tensors import MOST_DIMENSIONS
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule

_MORE_DIMENSIONS = range(3, MOST_DIMENSIONS + 1)
NO_EXPERTS = Rule(
    match=("*_exps.*", "*_exps", "*experts*"),
    ndim=tuple(_MORE_DIMENSIONS),
    skip=True,
    reason="stacks of experts, which the format does not hold quantized",
)
NO_MATRIX = Rule(ndim=(0, 1, *_MORE_DIMENSIONS), skip=True, reason="no matrices")
NO_STACK = Rule(ndim=(0, 1, *_MORE_DIMENSIONS[1:]), skip=True, reason="no matrices")
NO_WEIGHT = Rule(regex=r"(?<!\.weight)$", skip=True, reason="their names do not end with .weight")


def preceded(first: Sequence[Rule], recipe: Recipe | None) -> Recipe | None:
    """Return a recipe with rules before its own."""
    if not first:
        return recipe
    if recipe is None:
        return Recipe(first)
    return Recipe([*first, *recipe.rules], default=recipe.default, name=recipe.name)
