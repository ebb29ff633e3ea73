"""The settings and the recipe of a conversion, of what is said and what the format has."""

from __future__ import annotations

from dataclasses import dataclass

from pyarrowquant._core.encodings import ENCODING_NAMES, INTEGER
from pyarrowquant._core.quoting import enumerated, meant
from pyarrowquant._core.settings import SettingOverrides, Settings, listed, merged
from pyarrowquant.conversion.importance import importance_in
from pyarrowquant.conversion.opening import Opened
from pyarrowquant.conversion.request import Request
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.reading.importance import Importance
from pyarrowquant.recipes.mixes import mix_named
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


def choice(request: Request, source: Opened) -> Choice:
    """Find what layers are quantized with; raise where what is said contradicts itself."""
    target, model, said, budget = source.target, source.model, source.said, request.budget
    _check_encoding(said, target, budget)
    given = recipe_of(request.recipe)
    if given is None and budget is None and said.keys() <= {"method"}:
        mix = target.default_mix(model)
    else:
        mix = None if given is None else given.extends
    _check_mix(mix, said, target, budget)
    importance = importance_in(request.importance, model, said)
    is_changed = request.quality_floor is not None or (
        given is not None and bool(given.rules or given.default.said.keys() - {"method"})
    )
    if mix is not None:
        rest = target.mix(mix, model, importance is not None)
        given = (Recipe(name=mix) if given is None else given).extending(rest)
    chosen = _with_said(given, said, target, is_named(request.recipe))
    if chosen is not None and is_profile(request.recipe):
        usual = (target.default_recipe if budget is None else target.budget_recipe)(model)
        if usual is not None:
            chosen = Recipe(usual.rules, chosen.default.said, chosen.name)
    if budget is not None and "bit_width" in said:
        raise UsageError(f"bit_width= and {budget}= exclude each other")
    return Choice(
        mix,
        mix is not None and is_changed,
        target.defaults(model).with_overrides(said),
        target.recipe(model, chosen, budget is not None),
        importance,
    )


def _check_mix(mix: str | None, said: SettingOverrides, target: Format, budget: str | None) -> None:
    """Raise where a mix or scheme is said for a format that has none, or with other settings."""
    if mix is None:
        return
    if mix not in target.mixes:
        kinds = enumerated(name for name, each in FORMATS.items() if mix in each.mixes)
        raise UsageError(f"recipe={mix!r} is none of to={target.name!r}: {mix} is of {kinds}")
    others = [f"{name}=" for name in said if name != "method"]
    if budget is not None:
        others.append(f"{budget}=")
    if others:
        raise UsageError(f"recipe={mix!r} says the types of all tensors: leave out {others[0]}")


def _check_encoding(said: SettingOverrides, target: Format, budget: str | None) -> None:
    """Raise where a format does not hold the encoding, or nothing is left to fit to a budget."""
    encoding = said.get("encoding", INTEGER)
    if encoding not in ENCODING_NAMES:
        hint = meant(encoding.lower(), ENCODING_NAMES)
        if mix := mix_named(encoding):
            hint += f" The mix of llama.cpp is recipe={mix!r}"
        raise UsageError(f"encoding {encoding!r} must be one of {listed(ENCODING_NAMES)}.{hint}")
    if encoding not in target.encodings:
        others = enumerated(name for name, each in FORMATS.items() if encoding in each.encodings)
        raise UsageError(
            f"to={target.name!r} holds encoding {listed(target.encodings)}, and not {encoding!r}, "
            f"which {others} hold"
        )
    if encoding != INTEGER and budget is not None:
        raise UsageError(
            f"{budget}= fits bit widths, and encoding={encoding!r} has one. Leave "
            "out one of the two; in Python, Recipe.fit() takes encodings as candidates"
        )


def _with_said(
    chosen: Recipe | None, said: SettingOverrides, target: Format, comes_along: bool
) -> Recipe | None:
    """Return the recipe, with what the caller says in place of its default.

    The group size of a profile or a scheme, which comes with the package, gives way where the
    format has usual ones of its own, of which one fits the model.
    """
    if chosen is None or chosen.default.skip:
        return chosen
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
