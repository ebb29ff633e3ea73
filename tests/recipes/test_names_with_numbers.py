"""Layers whose names differ in numbers get what each would get alone."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyarrowquant import Recipe, Rule

PARTS = ["layers", "w1", "0", "7", "12", "70", "conv1d", "x_2", "_3", "3x", "weight", ""]
NAMES = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map(".".join)
GLOBS = st.lists(
    st.sampled_from([*PARTS, ".", "*", "?", "[0-4]", "[!7]", "[a-z]", "1", "5", "_"]),
    min_size=1,
    max_size=5,
).map("".join)
REGEXES = st.lists(
    st.sampled_from(
        [*PARTS, r"\.", ".", r"\d", r"\d+", "[0-4]", r"\w", r"\w1", "1", "1?", "_2*", "^", "$"]
    ),
    min_size=1,
    max_size=5,
).map("".join)
REPEATED = [r"(\d)\1", r"(?P<a>\d)(?P=a)", r"layers\.(?:0|7)\.", r".{3}2", r"(?<=7)\.w"]


def rule(pattern: tuple[str, str | list[str]], bits: int) -> Rule:
    kind, said = pattern
    return Rule(**{kind: said, "bit_width": bits})


PATTERNS = st.one_of(
    st.tuples(st.just("match"), st.lists(GLOBS, min_size=1, max_size=3)),
    st.tuples(st.just("regex"), st.one_of(REGEXES, st.sampled_from(REPEATED))),
)


@given(st.lists(PATTERNS, min_size=1, max_size=4), st.lists(NAMES, min_size=2, max_size=12))
def test_each_layer_gets_what_it_gets_alone(
    patterns: list[tuple[str, str | list[str]]], names: list[str]
) -> None:
    rules = [rule(pattern, bits) for pattern, bits in zip(patterns, itertools.cycle((2, 3, 5, 6)))]
    recipe = Recipe(rules, {"bit_width": 8})
    again = pickle.loads(pickle.dumps(recipe))
    for name in (*names, *reversed(names)):
        matching = (each for each in rules if each.matches(name, (4, 64)))
        expected = next(matching, recipe.default).bit_width
        assert recipe.settings_of(name, (4, 64)) == {"bit_width": expected}
        assert again.settings_of(name, (4, 64)) == {"bit_width": expected}


@pytest.mark.parametrize("glob", ["layers.1.*", "layers.?.*", "*.[1-4].*", "layers.1*.w"])
def test_globs_that_tell_numbers_apart(glob: str) -> None:
    recipe = Recipe([Rule(glob, bit_width=2)], {"bit_width": 8})
    names = [f"layers.{number}.w" for number in range(30)]
    found = [recipe.settings_of(name, (4, 64)) for name in names]
    assert found == [{"bit_width": 2 if Rule(glob).matches(name, (4, 64)) else 8} for name in names]
    assert {"bit_width": 2} in found
