"""The settings and the recipe of a conversion, of what is said and what the format has."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyarrowquant._core.settings import SettingOverrides, Settings
from pyarrowquant.conversion.importance import importance_in
from pyarrowquant.conversion.options import Options
from pyarrowquant.conversion.overriding import with_said
from pyarrowquant.conversion.request import Request
from pyarrowquant.formats._format import Format
from pyarrowquant.reading.importance import Importance
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.named import is_named, is_profile
from pyarrowquant.recipes.recipe import Recipe, recipe_of


@dataclass(frozen=True)
class Choice:
    """What layers are quantized with.

    Attributes
    ----------
    mix : str or None
        The mix of llama.cpp, or the scheme of compressed-tensors, that is followed.
    mix_is_changed : bool
        Whether some layers get other settings than the mix has.
    settings : Settings
        For what the recipe does not say.
    recipe : Recipe or None
    importance : Importance or None
        Of columns, by the names of its file.
    """

    mix: str | None
    mix_is_changed: bool
    settings: Settings
    recipe: Recipe | None
    importance: Importance | None


def choice(request: Request, options: Options, model: Model) -> Choice:
    """Find what the layers of a model are quantized with."""
    target, said, budget = options.target, options.said, request.budget
    given = recipe_of(request.recipe)
    if given is None and budget is None and said.keys() <= {"method"}:
        mix = target.default_mix(model)
    else:
        mix = None if given is None else given.extends
    importance = importance_in(request.importance, model, said)
    is_changed = request.quality_floor is not None or (
        given is not None and bool(given.rules or given.default.said.keys() - {"method"})
    )
    if mix is not None:
        rest = target.mix(mix, model, importance is not None)
        given = (Recipe(name=mix) if given is None else given).extending(rest)
    chosen = with_said(given, said, target, is_named(request.recipe))
    own = _own_recipe(target, model, said, budget)
    if chosen is not None and is_profile(request.recipe):
        chosen = Recipe(own.rules, chosen.default.said, chosen.name)
    settings = target.defaults(model).with_overrides(said)
    recipe = target.recipe(model, chosen, own)
    return Choice(mix, mix is not None and is_changed, settings, recipe, importance)


def _own_recipe(target: Format, model: Model, said: SettingOverrides, budget: str | None) -> Recipe:
    """Return a format's own recipe, whose symmetric zero-points leave hqq nothing to choose."""
    recipe = target.default_recipe(model) if budget is None else target.budget_recipe(model)
    if said.get("method") != "hqq":
        return recipe
    rules = [
        replace(rule, method="mse") if rule.zero_point == "symmetric" else rule
        for rule in recipe.rules
    ]
    return Recipe(rules, recipe.default.said, recipe.name)
