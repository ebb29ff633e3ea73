"""The settings and the recipe of a conversion, of what is said and what the format has."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyarrowquant._core.encodings import ENCODINGS, INTEGER
from pyarrowquant._core.settings import SettingOverrides, Settings, merged
from pyarrowquant.conversion.importance import importance_in
from pyarrowquant.conversion.options import Options
from pyarrowquant.conversion.request import Request
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._format import Format
from pyarrowquant.reading.importance import Importance
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.named import is_named, is_profile
from pyarrowquant.recipes.recipe import Recipe, recipe_of
from pyarrowquant.recipes.rule import Rule


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
    chosen = _with_said(given, said, target, is_named(request.recipe))
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


def _with_said(
    chosen: Recipe | None, said: SettingOverrides, target: Format, comes_along: bool
) -> Recipe | None:
    """Return the recipe, with what the caller says in place of its default.

    The group size of a profile or a scheme, which comes with the package, gives way where the
    format has usual ones of its own, of which one fits the model.
    """
    if chosen is None or chosen.default.skip:
        return chosen
    if comes_along and target.usual.encoding != INTEGER and "encoding" not in chosen.default.said:
        chosen = _within_one_width(chosen, target)
    default = merged(chosen.default.said, said)
    group_size = default.get("group_size")
    is_number = isinstance(group_size, int) and group_size > 0
    if comes_along and "group_size" not in said and target.group_sizes and is_number:
        del default["group_size"]
    if default == chosen.default.said:
        return chosen
    try:
        return Recipe(chosen.rules, default, chosen.name)
    except ValueError as error:  # each was right without the other
        raise UsageError(str(error)) from None


def _within_one_width(chosen: Recipe, target: Format) -> Recipe:
    """Return a profile or preset without other bits than those that the format has alone.

    Layers that a preset gives more bits stay as they are.
    """
    bits = ENCODINGS[target.usual.encoding].bit_width
    said = chosen.default.bit_width
    if said not in (None, bits):
        raise UsageError(
            f"recipe={chosen.name!r} says {said} bits, and to={target.name!r} has {bits} alone. "
            "Take another recipe, or another format"
        )
    rules = [
        Rule(rule.match, rule.regex, skip=True, reason=f"the format has {bits} bits alone")
        if rule.bit_width not in (None, bits)
        else rule
        for rule in chosen.rules
    ]
    return Recipe(rules, chosen.default.said, chosen.name)
