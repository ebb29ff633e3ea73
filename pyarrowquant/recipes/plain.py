"""Recipes as plain values, which JSON and YAML have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pyarrowquant._core.arguments import wrong_type
from pyarrowquant.recipes.expected import Expected, expected_from
from pyarrowquant.recipes.rule import (
    FIELDS,
    Rule,
    check_dict,
    check_fields,
    check_known,
    rule_label,
    with_bit_width,
)

_FIELDS = ("name", "extends", "expected", "default", "rules")


def plain_values(
    rules: Iterable[Rule],
    default: Rule,
    name: str | None,
    expected: Expected | None,
    extends: str | None,
) -> dict[str, Any]:
    """Return a recipe's plain values, without what it does not say."""
    values = {
        "name": name,
        "extends": extends,
        "expected": expected and asdict(expected),
        "default": ("skip" if default.skip else _plain_fields(default)) or None,
        "rules": [_plain_fields(rule) for rule in rules] or None,
    }
    return {field: value for field, value in values.items() if value is not None}


def checked_values(said: object) -> dict[str, Any]:
    """Return what plain values say of a recipe, by the names of its parameters.

    The default, the name and what it extends are as they were given.
    """
    values = check_dict("Recipe", said)
    check_known("Recipe", values, _FIELDS)
    checked = {field: value for field, value in values.items() if value is not None}
    rules = checked.get("rules", ())
    if not isinstance(rules, (list, tuple)):
        raise wrong_type("Recipe: rules must be a list", rules)
    checked["rules"] = [_numbered_rule(number, rule) for number, rule in enumerate(rules, 1)]
    if "expected" in checked:
        checked["expected"] = expected_from(checked["expected"])
    return checked


def _numbered_rule(number: int, said: object) -> Rule:
    """Check a rule while its number is known, which the rule itself does not know."""
    rule = check_dict(f"Recipe rule {number}", said)
    where = rule_label(rule, number)
    rule = with_bit_width(where, rule)
    check_known(where, rule, FIELDS)
    return Rule(**check_fields(where, rule))


def _plain_fields(rule: Rule) -> dict[str, Any]:
    return {
        field: list(value) if isinstance(value, tuple) else value
        for field, value in rule.said.items()
    }
