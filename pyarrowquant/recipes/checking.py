"""The rules and the default of a recipe, checked as they are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyarrowquant._core.bounds import SETTINGS
from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import ArgumentTypeError
from pyarrowquant.recipes.rule import (
    Rule,
    check_dict,
    check_fields,
    check_known,
    with_bit_width,
)


def checked_rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    rules = tuple(rules)
    for number, rule in enumerate(rules, 1):
        if not isinstance(rule, Rule):
            raise ArgumentTypeError(
                f"Recipe rule {number} must be a Rule, got {type(rule).__name__}: {quoted(rule)}"
            )
    return rules


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
