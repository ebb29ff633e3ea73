"""Recipes with rules for numbers in names: a layer asks few of them, and the first one decides."""

from __future__ import annotations

import fnmatch
import itertools
import random
import re

import pytest

from pyarrowquant import Recipe, Rule

NAMES = [
    ".".join(parts)
    for size in (1, 2, 3)
    for parts in itertools.product(["1", "17", "x1", "w"], repeat=size)
]
GLOBS = [
    *("1", "17", "1.*", "*.1", "*.1.*", "*.17.*", "*.17", "17.?", "*1.*", "*.1*", "?.1.w", "x1.*"),
    *("*.[1].*", "*.[!1].*", "*.1.[w]", "[.]1.17", "*.1.17", "1.1.1", "w.*.17", "*", "*.1.*.17"),
]
REGEXES = [
    *(r"\.1\.", r"\.17\.", r"w\.1\.", r"\.1\.17", r"\.1\.?", r"\.1\.*", r"(\.1\.)?w", r"\.1\.|w"),
    *(r"[.]1\.", r"\\.1\.", r"\.1\.{0,1}w", r"^x1\.1\..*7$", r"\.1\.+1", r"x\.?1\.", r".1\."),
]


def holds(rule: Rule, name: str) -> bool:
    if rule.regex is not None:
        return re.search(rule.regex, name) is not None
    globs = (rule.match,) if isinstance(rule.match, str) else rule.match or ()
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


@pytest.mark.parametrize("seed", range(50))
def test_the_first_rule_that_holds_decides(seed: int) -> None:
    chosen = random.Random(seed)
    rules = [Rule(regex=regex, group_size=8 * i) for i, regex in enumerate(REGEXES, 1)]
    rules += [Rule(glob, group_size=8 * i) for i, glob in enumerate(GLOBS, 101)]
    for i in range(201, 220):
        rules.append(Rule(chosen.sample(GLOBS, 2), group_size=8 * i))
    rules = chosen.sample(rules, 8)
    recipe = Recipe(rules, {"group_size": 8})
    for name in NAMES:
        expected = next((rule.group_size for rule in rules if holds(rule, name)), 8)
        assert recipe.settings_of(name, (2, 2)) == {"group_size": expected}, name


@pytest.mark.parametrize(
    "rule_of",
    [
        lambda i: Rule(f"model.layers.{i}.*", bit_width=8),
        lambda i: Rule([f"*.layers.{i}.*_proj.*", f"*.blocks.{i}.*"], bit_width=8),
        lambda i: Rule(regex=rf"layers\.{i}\.", bit_width=8),
        lambda i: Rule(regex=rf"^model\.layers\.{i}\..*_proj", bit_width=8),
    ],
    ids=["prefix", "globs", "regex", "anchored"],
)
def test_a_layer_asks_few_of_many_rules(rule_of: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(rule_of)
    asked = []
    matches = Rule.matches
    monkeypatch.setattr(
        Rule, "matches", lambda rule, *layer: asked.append(rule) or matches(rule, *layer)
    )
    recipe = Recipe([rule_of(i) for i in range(1000)])
    for i in range(2000):
        said = recipe.settings_of(f"model.layers.{i}.up_proj.weight", (2, 2))
        assert said == ({"bit_width": 8} if i < 1000 else {})
    assert len(asked) <= 3 * 2000
