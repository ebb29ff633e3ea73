"""What a caller says in place of what a recipe says of all layers."""

from __future__ import annotations

from pyarrowquant._core.encodings import ENCODINGS, INTEGER
from pyarrowquant._core.settings import SettingOverrides, merged
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._format import Format
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule


def with_said(
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
