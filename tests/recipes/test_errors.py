"""What errors say of recipes that are wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyarrowquant import Recipe, Rule
from recipes.strategies import SETTINGS
from recipes.wrong import message

GROUP_SIZES = "a multiple of 8 from 8 to 2147483640, or -1 for one group a row"


# Errors

WRONG_FIELDS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"bit_width": 7}, ValueError, "bit_width 7 must be one of 2, 3, 4, 5, 6, 8"),
    ({"bit_width": "4"}, TypeError, "bit_width must be an int, got str: '4'"),
    ({"bit_width": True}, TypeError, "bit_width must be an int, got bool: True"),
    ({"bit_width": 4.0}, TypeError, "bit_width must be an int, got float: 4.0"),
    ({"group_size": 100}, ValueError, f"group_size 100 must be {GROUP_SIZES}"),
    ({"group_size": 0}, ValueError, f"group_size 0 must be {GROUP_SIZES}"),
    ({"group_size": -8}, ValueError, f"group_size -8 must be {GROUP_SIZES}"),
    ({"group_size": 2**31}, ValueError, f"group_size 2147483648 must be {GROUP_SIZES}"),
    ({"group_size": None, "method": 1}, TypeError, "method must be a str, got int: 1"),
    ({"method": "gptq"}, ValueError, "method 'gptq' must be one of 'rtn', 'mse', 'hqq'"),
    (
        {"zero_point": "int"},
        ValueError,
        "zero_point 'int' must be one of 'integer', 'float', 'symmetric'",
    ),
    (
        {"scale_dtype": "float64"},
        ValueError,
        "scale_dtype 'float64' must be one of 'float32', 'float16', 'bfloat16'",
    ),
    ({"ndim": -1}, ValueError, "ndim -1 must be at least 0"),
    ({"ndim": [2, "3"]}, TypeError, "ndim must be an int, got str: '3'"),
    ({"ndim": []}, ValueError, "ndim must not be empty"),
    ({"min_columns": 0}, ValueError, "min_columns 0 must be at least 1"),
    ({"skip": 1}, TypeError, "skip must be True or False, got int: 1"),
]


@pytest.mark.parametrize(("said", "error", "text"), WRONG_FIELDS)
def test_wrong_fields(said: dict[str, Any], error: type[Exception], text: str) -> None:
    rule = {"match": "*.mlp.*", **said}
    recipe = {"rules": [{}, {"regex": "x"}, rule]}
    assert message(error, lambda: Rule(**rule)) == f"Recipe rule ('*.mlp.*'): {text}"
    numbered = f"Recipe rule 3 ('*.mlp.*'): {text}"
    assert message(error, lambda: Recipe.from_dict(recipe)) == numbered
    assert message(error, lambda: Recipe.from_json(json.dumps(recipe))) == numbered


@pytest.mark.parametrize(
    ("said", "error", "text"), [row for row in WRONG_FIELDS if set(row[0]) <= {"skip", *SETTINGS}]
)
def test_wrong_fields_of_the_default(
    said: dict[str, Any], error: type[Exception], text: str
) -> None:
    assert message(error, lambda: Recipe(default=said)) == f"Recipe default: {text}"
    assert message(error, lambda: Recipe.from_dict({"default": said})) == f"Recipe default: {text}"


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        ({"match": 3}, TypeError, " (3): match must be a str, got int: 3"),
        ({"match": ["a", 3]}, TypeError, " ('a', 3): match must be a str, got int: 3"),
        ({"match": []}, ValueError, " (): match must not be empty"),
        ({"regex": ["a"]}, TypeError, " ('a'): regex must be a str, got list: ['a']"),
        (
            {"regex": "a("},
            ValueError,
            " ('a('): regex 'a(' is no regular expression: "
            "missing ), unterminated subpattern at position 1",
        ),
        (
            {"regex": "a{99999999999}"},
            ValueError,
            " ('a{99999999999}'): regex 'a{99999999999}' is no regular expression: "
            "the repetition number is too large",
        ),
        (
            {"match": "a", "regex": "b"},
            ValueError,
            " ('a'): match and regex exclude each other",
        ),
        (
            {"match": ["a", "b"], "skip": True, "method": "rtn"},
            ValueError,
            " ('a', 'b'): skip and method exclude each other",
        ),
        ({"bit_width": 1}, ValueError, ": bit_width 1 must be one of 2, 3, 4, 5, 6, 8"),
    ],
)
def test_wrong_rules(said: dict[str, Any], error: type[Exception], text: str) -> None:
    assert message(error, lambda: Rule(**said)) == f"Recipe rule{text}"
    assert message(error, lambda: Recipe.from_dict({"rules": [said]})) == f"Recipe rule 1{text}"


KNOWN_SETTINGS = "'bit_width', 'group_size', 'method', 'zero_point', 'scale_dtype', 'encoding'"


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        (
            {"rules": [{"match": "a"}, {"match": "b", "width": 4}]},
            ValueError,
            "Recipe rule 2 ('b'): unknown field 'width'. Did you mean 'bit_width'? Known are "
            f"'match', 'regex', 'ndim', 'min_columns', 'skip', {KNOWN_SETTINGS}",
        ),
        (
            {"default": {"match": "a"}},
            ValueError,
            f"Recipe default: unknown field 'match'. Known are 'skip', {KNOWN_SETTINGS}",
        ),
        (
            {"default": {"skip": True, "bit_width": 4}},
            ValueError,
            "Recipe default: skip and bit_width exclude each other",
        ),
        (
            {"rule": []},
            ValueError,
            "Recipe: unknown field 'rule'. Did you mean 'rules'? Known are 'name', 'extends', "
            "'expected', 'default', 'rules'",
        ),
        (
            {"default": "none"},
            ValueError,
            "Recipe default 'none' must be 'skip' or a dict of settings",
        ),
        ({"default": 4}, TypeError, "Recipe default must be a dict, got int: 4"),
        ({"rules": ["a"]}, TypeError, "Recipe rule 1 must be a dict, got str: 'a'"),
        ({"rules": {"a": 1}}, TypeError, "Recipe: rules must be a list, got dict: {'a': 1}"),
        ({"name": 3}, TypeError, "Recipe: name must be a str, got int: 3"),
        ([], TypeError, "Recipe must be a dict, got list: []"),
        (None, TypeError, "Recipe must be a dict, got NoneType: None"),
    ],
)
def test_wrong_recipes(said: Any, error: type[Exception], text: str) -> None:
    assert message(error, lambda: Recipe.from_dict(said)) == text
    assert message(error, lambda: Recipe.from_json(json.dumps(said))) == text
    assert message(error, lambda: Recipe.from_yaml(json.dumps(said))) == text


def test_rules_that_are_none() -> None:
    rules: Any = [Rule("a"), {"match": "b"}]
    text = "Recipe rule 2 must be a Rule, got dict: {'match': 'b'}"
    assert message(TypeError, lambda: Recipe(rules)) == text


def test_a_rule_with_conditions_is_no_default() -> None:
    text = f"Recipe default: unknown field 'ndim'. Known are 'skip', {KNOWN_SETTINGS}"
    assert message(ValueError, lambda: Recipe(default=Rule(ndim=2, bit_width=4))) == text


def test_wrong_names_of_profiles_and_presets() -> None:
    profiles = "profile 'phone' must be one of 'edge', 'local', 'cloud'"
    assert message(ValueError, lambda: Recipe.profile("phone")) == profiles
    assert message(ValueError, lambda: Recipe.preset("text", "phone")) == profiles
    presets = "preset 'audio' must be one of 'text', 'diffusion', 'vision'"
    assert message(ValueError, lambda: Recipe.preset("audio")) == presets


# Profiles and presets


@pytest.mark.parametrize("read", [Recipe.from_json, Recipe.from_yaml])
@pytest.mark.parametrize("text", [None, b"{}", 5, []])
def test_text_of_a_wrong_type(read: Any, text: object) -> None:
    assert "must be a str, got" in message(TypeError, lambda: read(text))
