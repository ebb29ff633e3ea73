"""Which rule of a recipe decides about a layer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from heapq import merge
from typing import Any, cast

from pyarrowquant._core.bounds import SETTINGS
from pyarrowquant._core.settings import SettingOverrides, Settings, contradiction, merged
from pyarrowquant.errors import UsageError
from pyarrowquant.recipes.rule import NUMBER, Rule, rule_label


class Decisions:
    """The outcomes of rules, of which the first one that matches decides.

    Models have tens of thousands of layers whose names differ in numbers between dots, which most
    rules do not look at: such layers are decided once, and all others once each. Recipes have as
    many rules by name, or by such numbers: these are found by them.

    Parameters
    ----------
    rules : sequence of Rule
    default : Rule
        Matches all layers.

    Attributes
    ----------
    outcomes : list of (Rule, SettingOverrides or None)
        Each rule with the settings that it leads to; the default is the last.
    """

    def __init__(self, rules: Sequence[Rule], default: Rule) -> None:
        usual = {} if default.skip else default.said
        self.outcomes: list[tuple[Rule, SettingOverrides | None]] = [
            (rule, None if rule.skip else _settings(merged(usual, rule.said)))
            for rule in (*rules, default)
        ]
        self._are_blind = all(rule.is_blind_to_numbers for rule in rules)
        self._plain_names = frozenset().union(*(rule.plain_names for rule in rules))
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_number: dict[str, list[int]] = defaultdict(list)
        self._by_pattern: list[int] = []
        for place, (rule, _) in enumerate(self.outcomes):
            if rule.is_by_name:
                for name in rule.plain_names:
                    self._by_name[name].append(place)
            elif rule.numbers is not None:
                for number in rule.numbers:
                    self._by_number[number].append(place)
            else:
                self._by_pattern.append(place)
        self._decided: dict[tuple[bool, str, tuple[int, ...]], int] = {}
        self._applied: dict[tuple[int, Settings], Settings] = {}

    def check(self) -> None:
        """Refuse a rule that contradicts the default."""
        for number, (rule, said) in enumerate(self.outcomes, 1):
            if said is not None and (problem := contradiction(said, rule.said)):
                raise ValueError(f"{rule_label(rule.said, number)}, with the default: {problem}")

    def outcome(self, name: str, shape: Sequence[int]) -> tuple[Rule, SettingOverrides | None]:
        """Return the rule that decides about a layer, and the settings that it leads to."""
        return self.outcomes[self._deciding(name, shape)]

    def applied(
        self, settings: Settings, name: str, shape: Sequence[int]
    ) -> tuple[Rule, Settings | None]:
        """Return the rule that decides about a layer, and settings with those of the rule."""
        number = self._deciding(name, shape)
        rule, said = self.outcomes[number]
        if said is None:
            return rule, None
        key = number, settings
        if key not in self._applied:
            self._applied[key] = settings.with_overrides(said)
        return rule, self._applied[key]

    def choices(self, settings: Settings) -> list[Settings]:
        """Return all that `applied` can give for a layer that is not left out.

        Raises
        ------
        UsageError
            A rule contradicts these settings.
        """
        found = []
        for number, (rule, said) in enumerate(self.outcomes, 1):
            try:
                found += [] if said is None else [settings.with_overrides(said)]
            except UsageError as error:
                is_default = number == len(self.outcomes)
                label = "Recipe default" if is_default else rule_label(rule.said, number)
                raise UsageError(f"{label}, with the settings of the call: {error}") from None
        return found

    def _deciding(self, name: str, shape: Sequence[int]) -> int:
        """Return the place of the rule that decides about a layer."""
        has_like = self._are_blind and name not in self._plain_names
        key = has_like, NUMBER.sub(_zeros, name) if has_like else name, tuple(shape)
        if key not in self._decided:
            by_number = (self._by_number.get(each, ()) for each in {*NUMBER.findall(name)})
            places = merge(self._by_name.get(name, ()), *by_number, self._by_pattern)
            deciding = next(i for i in places if self.outcomes[i][0].matches(name, shape))
            self._decided[key] = deciding
        return self._decided[key]


def _settings(said: Mapping[str, Any]) -> SettingOverrides:
    settings: Any = {field: said[field] for field in SETTINGS if field in said}
    return cast(SettingOverrides, settings)


def _zeros(number: re.Match[str]) -> str:
    return "0" * len(number[0])
