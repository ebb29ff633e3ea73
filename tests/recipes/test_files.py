"""Recipes as text and in files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import example, given

from pyarrowquant import Recipe, Rule
from recipes.strategies import recipes
from recipes.wrong import message

# Errors


def test_text_that_is_no_json_or_yaml(tmp_path: Path) -> None:
    assert message(ValueError, lambda: Recipe.from_json("{")).startswith("Recipe is not JSON: ")
    (tmp_path / "recipe.json").write_text("rules: []")
    text = message(ValueError, lambda: Recipe.load(tmp_path / "recipe.json"))
    problem = "Recipe is not JSON: Expecting value: line 1 column 1 (char 0)"
    assert text == f"{tmp_path / 'recipe.json'}: {problem}"
    text = message(ValueError, lambda: Recipe.from_yaml("rules: ["))
    assert text.startswith("Recipe is not YAML: ")
    assert "quotes" not in text
    text = message(ValueError, lambda: Recipe.from_yaml("rules:\n- match: *embed*\n"))
    assert text.endswith(". A pattern that begins with * needs quotes")


@pytest.mark.parametrize("name", ["recipe.toml", "recipe", "recipe.JSON"])
def test_wrong_suffix(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    text = f"Recipe file {str(path)!r} must end with .json, .yaml or .yml"
    assert message(ValueError, lambda: Recipe().save(path)) == text
    assert message(ValueError, lambda: Recipe.load(path)) == text
    assert not path.exists()


def test_yaml_without_pyyaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    text = "YAML recipes need PyYAML: pip install 'pyarrowquant[yaml]'"
    assert message(ImportError, lambda: Recipe().to_yaml()) == text
    assert message(ImportError, lambda: Recipe.from_yaml("{}")) == text
    assert message(ImportError, lambda: Recipe().save(tmp_path / "a.yml")) == text
    Recipe().save(tmp_path / "a.json")
    assert Recipe.load(tmp_path / "a.json") == Recipe()


# Files

BY_HAND = {
    "default": {"bit_width": 4},
    "rules": [
        {"match": "*embed*", "skip": True},
        {"match": ["*.q_proj.*", "*.k_proj.*"], "bit_width": 8},
    ],
}


def test_a_file_written_by_hand() -> None:
    recipe = Recipe(
        [Rule("*embed*", skip=True), Rule(("*.q_proj.*", "*.k_proj.*"), bit_width=8)],
        default={"bit_width": 4},
    )
    assert Recipe.from_dict(BY_HAND) == recipe
    assert recipe.to_dict() == BY_HAND
    text = "default: {bit_width: 4}\nrules:\n- {match: '*embed*', skip: true}\n"
    assert Recipe.from_yaml(text) == Recipe(recipe.rules[:1], recipe.default)


def test_null_is_not_said() -> None:
    rule = {"match": None, "regex": "a", "skip": None, "bit_width": None}
    said = {"name": None, "default": None, "rules": [rule]}
    assert Recipe.from_dict(said) == Recipe([Rule(regex="a")])
    assert Recipe.from_dict({"rules": None}) == Recipe()


def test_fields_come_in_the_order_of_the_parameters() -> None:
    rule = {
        "match": ["é*"],
        "ndim": 0,
        "min_columns": 9,
        "bit_width": 2,
        "group_size": -1,
        "method": "hqq",
        "zero_point": "float",
        "scale_dtype": "bfloat16",
    }
    said = {"name": "n", "default": "skip", "rules": [rule, {"regex": "b", "skip": True}]}
    backwards = {**said, "rules": [dict(reversed(rule.items())), said["rules"][1]]}
    recipe = Recipe.from_dict(backwards)
    assert recipe.to_json() == json.dumps(said, indent=2, ensure_ascii=False)
    assert recipe.to_yaml().startswith('name: n\ndefault: skip\nrules:\n- match:\n  - "\\xE9*"\n')


@given(recipes)
@example(Recipe([Rule("\x85\u2028\u2029\ufeff\x00 ")], name="null"))
@example(Recipe([Rule(["on", "1", "~", "", "- a", "é"])], name="*a"))
def test_round_trips(recipe: Recipe) -> None:
    said = recipe.to_dict()
    assert Recipe.from_dict(said) == recipe
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert list(json.loads(recipe.to_json()).items()) == list(said.items())


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
def test_save_and_load(tmp_path: Path, suffix: str) -> None:
    recipe = Recipe([Rule("été*", skip=True)], default="skip", name="été")
    recipe.save(str(tmp_path / f"a{suffix}"))
    assert Recipe.load(tmp_path / f"a{suffix}") == recipe
    text = (tmp_path / f"a{suffix}").read_text(encoding="utf-8")
    assert text == (recipe.to_json() + "\n" if suffix == ".json" else recipe.to_yaml())
