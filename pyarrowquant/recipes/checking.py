"""The rules and the default of a recipe, checked as they are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyarrowquant._core.arguments import several, wrong_type
from pyarrowquant._core.bounds import SETTINGS
from pyarrowquant._core.quoting import quoted
from pyarrowquant.recipes.expected import Expected
from pyarrowquant.recipes.rule import (
    Rule,
    check_dict,
    check_fields,
    check_known,
    with_bit_width,
)


def checked_rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    checked = tuple(several("Recipe: rules must be an iterable of Rule", rules))
    for number, rule in enumerate(checked, 1):
        if not isinstance(rule, Rule):
            raise wrong_type(f"Recipe rule {number} must be a Rule", rule)
    return checked


def checked_default(default: Mapping[str, object] | Rule | str | None) -> Rule:
    if default is None:
        return Rule()
    where = "Recipe default"
    if isinstance(default, str):
        if default == "skip":
            return Rule(skip=True)
        raise ValueError(f"{where} {quoted(default)} must be 'skip' or a dict of settings")
    said = default.said if isinstance(default, Rule) else check_dict(where, default)
    said = with_bit_width(where, said)
    check_known(where, said, ("skip", *SETTINGS))
    return Rule(**check_fields(where, said))


def checked_expected(expected: Expected | None) -> Expected | None:
    if expected is None or isinstance(expected, Expected):
        return expected
    raise wrong_type("Recipe: expected must be an Expected", expected)
