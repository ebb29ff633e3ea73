"""Rules that name layers are found by these names, and decide as the first that matches does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyarrowquant
from pyarrowquant import Recipe, Rule

NAMES = ["a", "b", "layers.1.a", "layers.2.a", "layers.10.a", "*"]
SHAPES = [(8,), (8, 32), (8, 64)]
CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "match": st.one_of(
            st.sampled_from([*NAMES, "*a", "layers.?.a", "[ab]"]),
            st.lists(st.sampled_from([*NAMES, "layers.*"]), min_size=1, max_size=3),
        ),
        "ndim": st.integers(1, 2),
        "min_columns": st.sampled_from([33, 65]),
    },
)


@given(st.lists(CONDITIONS, max_size=6))
def test_the_first_rule_that_matches_decides(conditions: list[dict[str, object]]) -> None:
    rules = [
        Rule(**said, group_size=8 * number)  # type: ignore[arg-type]
        for number, said in enumerate(conditions, 1)
    ]
    recipe = Recipe(rules, {"group_size": 256})
    for name in NAMES:
        for shape in SHAPES:
            matching = [rule.group_size for rule in rules if rule.matches(name, shape)]
            wanted = {"group_size": [*matching, 256][0]}
            assert recipe.settings_of(name, shape) == wanted


def test_as_many_rules_as_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is asked about a layer that it does not name."""
    names = [f"layers.{number}.weight" for number in range(500)]
    np.savez(tmp_path / "model.npz", **dict.fromkeys(names, np.ones((8, 32), np.float32)))
    recipe = Recipe([Rule(name, bit_width=8) for name in names], default="skip")
    asked: Counter[bool] = Counter()
    matches = Rule.matches

    def counted(rule: Rule, name: str, shape: tuple[int, ...]) -> bool:
        found = matches(rule, name, shape)
        asked[found or rule.match is None] += 1
        return found

    monkeypatch.setattr(Rule, "matches", counted)
    planned = pyarrowquant.plan(
        tmp_path / "model.npz", tmp_path / "out.parquet", recipe=recipe
    ).layers
    assert [layer.settings.bit_width for layer in planned if layer.settings] == [8] * 500
    assert asked[True] > 0
    assert asked[False] < len(names) * 20  # the rules of formats, whose number is fixed


def test_as_many_globs_as_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked about a layer once to decide, and once whether it is for any."""
    count = 100
    names = [f"layers.{number}.weight" for number in range(count)]
    np.savez(tmp_path / "model.npz", **dict.fromkeys(names, np.ones((8, 32), np.float32)))
    recipe = Recipe([Rule(f"*.{number}.*", bit_width=8) for number in range(count)], "skip")
    matches, asked = Rule.matches, Counter[str]()

    def counted(rule: Rule, name: str, shape: tuple[int, ...]) -> bool:
        asked[str(rule.match)] += 1
        return matches(rule, name, shape)

    monkeypatch.setattr(Rule, "matches", counted)
    pyarrowquant.convert(tmp_path / "model.npz", tmp_path / "out.parquet", recipe=recipe)
    most = sum(asked[str(rule.match)] for rule in recipe.rules)
    assert 0 < most <= 2 * count * count
