"""Recipes: which rule decides, and rules and recipes as values."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyarrowquant import Recipe, Rule
from recipes.strategies import SETTINGS, compatible, names, rules, shapes

# Which rule decides


def test_first_matching_rule_decides_and_the_default_fills_in() -> None:
    recipe = Recipe(
        [
            Rule("*.mlp.*", bit_width=3, method="mse"),
            Rule("*.mlp.down.*", bit_width=8),
            Rule("*.attn.*"),
            Rule("*.head", skip=True),
        ],
        default={"bit_width": 4, "group_size": 64},
    )
    assert recipe.settings_of("a.mlp.down.w", (8, 8)) == {
        "bit_width": 3,
        "group_size": 64,
        "method": "mse",
    }
    assert recipe.settings_of("a.attn.q", (8, 8)) == {"bit_width": 4, "group_size": 64}
    assert recipe.settings_of("a.head", (8, 8)) is None
    assert recipe.settings_of("else", (8, 8)) == {"bit_width": 4, "group_size": 64}


def test_empty_recipe_says_nothing() -> None:
    assert Recipe().settings_of("a", ()) == {}
    assert Recipe() == Recipe([], {}, None) == Recipe.from_dict({})


def test_default_skip_leaves_out_what_no_rule_names() -> None:
    recipe = Recipe([Rule("a"), Rule("b", bit_width=2)], default="skip")
    said = [recipe.settings_of(name, (4, 4)) for name in "abc"]
    assert said == [{}, {"bit_width": 2}, None]


def test_what_is_returned_is_the_callers() -> None:
    recipe = Recipe(default={"bit_width": 4})
    said = recipe.settings_of("a", (1, 1))
    assert said is not None
    said["bit_width"] = 2
    assert recipe.settings_of("a", (1, 1)) == {"bit_width": 4}


@pytest.mark.parametrize(
    ("rule", "name", "shape", "matches"),
    [
        (Rule(), "any", (), True),
        (Rule("a.*"), "a.b.c", (), True),
        (Rule("a.*"), "b.a.c", (), False),
        (Rule("a"), "ab", (), False),
        (Rule("a"), "a\n", (), False),
        (Rule("a.?"), "a.bc", (), False),
        (Rule("A.*"), "a.b", (), False),
        (Rule("[ab].w"), "b.w", (), True),
        (Rule("*"), "line\nbreak", (), True),
        (Rule(["x", "*.q", "*.k"]), "0.k", (), True),
        (Rule(["x", "*.q", "*.k"]), "0.v", (), False),
        (Rule(regex="q|k$"), "a.q.w", (), True),
        (Rule(regex="q|k$"), "a.k.w", (), False),
        (Rule(regex="(?i)NORM"), "a.norm.w", (), True),
        (Rule(ndim=0), "a", (), True),
        (Rule(ndim=0), "a", (1,), False),
        (Rule(ndim=2), "a", (3, 4), True),
        (Rule(ndim=[0, 1]), "a", (3,), True),
        (Rule(ndim=[0, 1]), "a", (3, 4), False),
        (Rule(min_columns=12), "a", (2, 3, 4), True),
        (Rule(min_columns=13), "a", (2, 3, 4), False),
        (Rule(min_columns=5), "a", (5,), True),
        (Rule(min_columns=6), "a", (5,), False),
        (Rule(min_columns=1), "a", (), True),
        (Rule(min_columns=1), "a", (3, 0), False),
        (Rule("a", ndim=2, min_columns=4), "a", (1, 4), True),
        (Rule("b", ndim=2, min_columns=4), "a", (1, 4), False),
        (Rule("a", ndim=3, min_columns=4), "a", (1, 4), False),
        (Rule("a", ndim=2, min_columns=5), "a", (1, 4), False),
    ],
)
def test_conditions(rule: Rule, name: str, shape: tuple[int, ...], matches: bool) -> None:
    assert rule.matches(name, shape) is matches
    assert (Recipe([rule], default="skip").settings_of(name, shape) is None) is not matches


def holds(rule: Rule, name: str, shape: list[int]) -> bool:
    """The conditions of a rule, as their documentation says them."""
    columns = math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)
    globs = (rule.match,) if isinstance(rule.match, str) else rule.match
    ndims = (rule.ndim,) if isinstance(rule.ndim, int) else rule.ndim
    return (
        (globs is None or any(fnmatch.fnmatchcase(name, glob) for glob in globs))
        and (rule.regex is None or re.search(rule.regex, name) is not None)
        and (ndims is None or len(shape) in ndims)
        and (rule.min_columns is None or columns >= rule.min_columns)
    )


@given(compatible, st.data(), names, shapes)
def test_any_recipe_is_the_loop_over_its_rules(
    settings: Any, data: st.DataObject, name: str, shape: list[int]
) -> None:
    tried = data.draw(st.lists(rules(settings), max_size=5))
    default = data.draw(st.none() | st.just("skip") | settings)
    globs = [rule.match for rule in tried if isinstance(rule.match, str)]
    name = data.draw(st.sampled_from([name, *globs]))
    expected = None if default == "skip" else dict(default or {})
    for rule in tried:
        if holds(rule, name, shape):
            said = {f: getattr(rule, f) for f in SETTINGS if getattr(rule, f) is not None}
            expected = None if rule.skip else {**(expected or {}), **said}
            break
    assert Recipe(tried, default).settings_of(name, shape) == expected


def test_patterns_are_compiled_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    translated = []
    translate = fnmatch.translate
    monkeypatch.setattr(fnmatch, "translate", lambda g: translated.append(g) or translate(g))
    recipe = Recipe.from_json(Recipe.preset("diffusion", "local").to_json())  # of new rules
    layers = [(f"transformer.blocks.{i}.feed_forward.proj.weight", (64, 64)) for i in range(20_000)]
    said = [recipe.settings_of(*layer) for layer in layers]
    assert 0 < len(translated) < 1000
    assert said == [{"bit_width": 4, "group_size": 128, "method": "mse"}] * 20_000


# Values


def test_rules_and_recipes_are_values() -> None:
    recipe = Recipe([Rule(["a", "b"], ndim=[2, 3], bit_width=8)], {"bit_width": 4}, "mine")
    assert recipe.rules == (Rule(("a", "b"), ndim=(2, 3), bit_width=8),)
    assert recipe.default == Rule(bit_width=4)
    assert recipe == Recipe(recipe.rules, recipe.default, "mine")
    assert hash(recipe) == hash(Recipe(recipe.rules, recipe.default, "mine"))
    assert dataclasses.replace(recipe, name=None) == Recipe(recipe.rules, {"bit_width": 4})
    assert recipe.settings_of("a", (1, 2)) == {"bit_width": 8}
    assert pickle.loads(pickle.dumps(recipe)) == recipe  # with its patterns compiled
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.name = "other"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.rules[0].bit_width = 2  # type: ignore[misc]


def test_integers_of_any_type_become_ints() -> None:
    import numpy as np

    recipe = Recipe([Rule(bit_width=np.uint8(8), group_size=np.int64(64), ndim=np.int32(2))])
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_rule_shows_what_it_says() -> None:
    rule = Rule(("a", "b"), ndim=0, skip=True)
    assert repr(rule) == "Rule(match=('a', 'b'), ndim=0, skip=True)"
    assert rule.said == {"match": ("a", "b"), "ndim": 0, "skip": True}
    assert eval(repr(rule)) == rule
