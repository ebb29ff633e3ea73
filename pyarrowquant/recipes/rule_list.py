"""Ordered rules and a default: what a recipe says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pyarrowquant._core import arguments
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.settings import contradiction, merged
from pyarrowquant.recipes.checking import checked_default, checked_rules
from pyarrowquant.recipes.deciding import Decisions
from pyarrowquant.recipes.expected import Expected
from pyarrowquant.recipes.named import extended_name
from pyarrowquant.recipes.rule import Rule, rule_label

_Recipe = TypeVar("_Recipe", bound="RuleList")


@dataclass(frozen=True, init=False)
class RuleList:
    """What a `Recipe` says, which is checked as it is given; see there."""

    rules: tuple[Rule, ...]
    default: Rule
    name: str | None
    expected: Expected | None
    extends: str | None

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        default: Mapping[str, object] | Rule | str | None = None,
        name: str | None = None,
        expected: Expected | None = None,
        extends: str | None = None,
    ) -> None:
        object.__setattr__(self, "rules", checked_rules(rules))
        object.__setattr__(self, "default", checked_default(default))
        object.__setattr__(
            self, "name", name if name is None else arguments.text("Recipe: name", name)
        )
        object.__setattr__(self, "expected", expected)
        object.__setattr__(self, "extends", None if extends is None else _extended(extends))
        if self.extends is not None and self.default.skip:
            raise ValueError(
                f"Recipe: default 'skip' leaves nothing to {self.extends}, which it extends. Leave "
                "layers out by rules with skip"
            )
        self._check_together()

    def _check_together(self) -> None:
        """Refuse a rule that contradicts the default."""
        for number, (rule, said) in enumerate(self._decisions.outcomes, 1):
            if said is not None and (problem := contradiction(said, rule.said)):
                raise ValueError(f"{rule_label(rule.said, number)}, with the default: {problem}")

    @cached_property
    def _decisions(self) -> Decisions:
        return Decisions(self.rules, self.default)

    def extending(self: _Recipe, other: RuleList) -> _Recipe:
        """Return the recipe with what another one says behind it."""
        default: Rule | dict[str, Any] = self.default
        if not self.default.skip:
            default = merged(other.default.said, self.default.said)
        rules = (*self.rules, *other.rules)
        return type(self)(rules, default, self.name, self.expected, other.extends)


def _extended(name: object) -> str:
    extended = extended_name(arguments.text("Recipe: extends", name))
    if extended is None:
        raise ValueError(
            f"Recipe: extends {quoted(name)} is no scheme of compressed-tensors, and no mix of "
            "llama.cpp. Presets and profiles are extended by Recipe.from_dict()"
        )
    return extended
