"""Recipes: which rule decides, what errors say, files, profiles and presets."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import math
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyarrowquant import Recipe, Rule
from pyarrowquant.errors import ArgumentTypeError

# All tensors of small configurations, named as transformers 5.24 and diffusers 0.42 save them.
# "quantize" was set from the models' structure, not from names: false for fewer than two
# dimensions, embeddings and norms by the class of their module, and the modules listed by hand
# that come before or after the blocks or take in the time step.
ARCHITECTURES = Path(__file__).parent / "data" / "architectures"
PRESET_OF = {
    "bert": "text",
    "gpt2": "text",
    "llama": "text",
    "mixtral": "text",
    "mixtral_stacked": "text",
    "t5_encoder": "text",
    "whisper": "text",
    "flux": "diffusion",
    "pixart": "diffusion",
    "qwen_image": "diffusion",
    "sd3": "diffusion",
    "unet_sd15": "diffusion",
    "unet_sdxl": "diffusion",
    "wan": "diffusion",
    "clip_vision": "vision",
    "dinov2": "vision",
    "swin": "vision",
    "vit": "vision",
}
SETTINGS = {
    "bit_width": [2, 3, 4, 5, 6, 8],
    "group_size": [-1, 8, 128, 2147483640],
    "method": ["rtn", "hqq", "mse"],
    "zero_point": ["integer", "float", "symmetric"],
    "scale_dtype": ["float32", "float16", "bfloat16"],
}
GROUP_SIZES = "a multiple of 8 from 8 to 2147483640, or -1 for the whole row"


def architecture(name: str) -> dict[str, dict[str, Any]]:
    layers: dict[str, dict[str, Any]] = json.loads((ARCHITECTURES / f"{name}.json").read_text())
    return layers


def kept(recipe: Recipe, layers: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the layers that a recipe leaves out."""
    return [name for name in layers if recipe.settings_of(name, layers[name]["shape"]) is None]


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


names = st.text("ab.[]*?!-\n", max_size=5)
shapes = st.lists(st.integers(0, 20), max_size=3)


def settings_without(value: str) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of layers: hqq and symmetric exclude each other."""
    left = {field: [v for v in values if v != value] for field, values in SETTINGS.items()}
    return st.fixed_dictionaries({}, optional={f: st.sampled_from(v) for f, v in left.items()})


compatible = st.sampled_from([settings_without("hqq"), settings_without("symmetric")])


@st.composite
def rules(
    draw: st.DrawFn,
    settings: st.SearchStrategy[dict[str, Any]],
    patterns: st.SearchStrategy[str] = names,
) -> Rule:
    conditions: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "ndim": st.integers(0, 3) | st.lists(st.integers(0, 3), min_size=1, max_size=2),
                "min_columns": st.integers(1, 30),
            },
        )
    )
    kind = draw(st.sampled_from(["glob", "globs", "regex", "all"]))
    if kind == "glob":
        conditions["match"] = draw(patterns)
    elif kind == "globs":
        conditions["match"] = draw(st.lists(patterns, min_size=1, max_size=3))
    elif kind == "regex":
        conditions["regex"] = re.escape(draw(patterns))
    outcome = draw(st.just({"skip": True}) | settings)
    return Rule(**conditions, **outcome)


recipes = compatible.flatmap(
    lambda settings: st.builds(
        Recipe,
        st.lists(rules(settings, st.text(max_size=6)), max_size=4),
        st.none() | st.just("skip") | settings,
        st.none() | st.text(max_size=6),
    )
)


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
    recipe = Recipe.preset("diffusion", "local")
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
    ({"method": "gptq"}, ValueError, "method 'gptq' must be one of 'rtn', 'hqq', 'mse'"),
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


def message(error: type[Exception], make: Any) -> str:
    with pytest.raises(error) as caught:
        make()
    # Callers catch either for a wrong type.
    assert type(caught.value) is (ArgumentTypeError if error is TypeError else error)
    return str(caught.value)


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


KNOWN_SETTINGS = "'bit_width', 'group_size', 'method', 'zero_point', 'scale_dtype'"


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [
        (
            {"rules": [{"match": "a"}, {"match": "b", "bits": 4}]},
            ValueError,
            "Recipe rule 2 ('b'): unknown field 'bits'. Known are 'match', 'regex', 'ndim', "
            f"'min_columns', 'skip', {KNOWN_SETTINGS}",
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
            "Recipe: unknown field 'rule'. Known are 'name', 'expected', 'default', 'rules'",
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
    text = "YAML recipes need PyYAML: pip install pyarrowquant[yaml]"
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


# Profiles and presets


def test_profiles() -> None:
    said = {
        name: Recipe.profile(name).settings_of("a", (8,)) for name in ("edge", "local", "cloud")
    }
    assert said == {
        "edge": {"bit_width": 2, "group_size": 256, "method": "mse"},
        "local": {"bit_width": 4, "group_size": 128, "method": "mse"},
        "cloud": {"bit_width": 8, "group_size": 64, "method": "mse"},
    }
    assert Recipe.profile("edge").name == "edge"


@pytest.mark.parametrize("profile", [None, "edge", "local", "cloud"])
@pytest.mark.parametrize("preset", ["text", "diffusion", "vision"])
def test_presets_with_profiles(preset: str, profile: str | None) -> None:
    recipe = Recipe.preset(preset, profile)
    assert recipe.rules == Recipe.preset(preset).rules
    assert recipe.default == (Rule() if profile is None else Recipe.profile(profile).default)
    assert recipe.name == (preset if profile is None else f"{preset}-{profile}")
    assert Recipe.from_json(recipe.to_json()) == recipe == Recipe.from_yaml(recipe.to_yaml())


def test_every_architecture_has_its_preset() -> None:
    assert {path.stem for path in ARCHITECTURES.glob("*.json")} == set(PRESET_OF)


@pytest.mark.parametrize("prefix", ["", "wrapped.inner_model."])
@pytest.mark.parametrize("name", PRESET_OF)
def test_presets_keep_what_must_stay(name: str, prefix: str) -> None:
    layers = {prefix + layer: value for layer, value in architecture(name).items()}
    stay = [layer for layer, value in layers.items() if not value["quantize"]]
    assert stay
    assert len(stay) < len(layers)
    assert kept(Recipe.preset(PRESET_OF[name]), layers) == stay


@pytest.mark.parametrize(
    ("name", "modulation"),
    [
        (
            "flux",
            [
                "transformer_blocks.0.norm1.linear.weight",
                "transformer_blocks.0.norm1_context.linear.weight",
                "transformer_blocks.1.norm1.linear.weight",
                "transformer_blocks.1.norm1_context.linear.weight",
                "single_transformer_blocks.0.norm.linear.weight",
                "single_transformer_blocks.1.norm.linear.weight",
            ],
        ),
        (
            "sd3",
            [
                "transformer_blocks.0.norm1.linear.weight",
                "transformer_blocks.0.norm1_context.linear.weight",
                "transformer_blocks.1.norm1.linear.weight",
                "transformer_blocks.1.norm1_context.linear.weight",
                "transformer_blocks.2.norm1.linear.weight",
                "transformer_blocks.2.norm1_context.linear.weight",
            ],
        ),
        (
            "qwen_image",
            [
                "transformer_blocks.0.img_mod.1.weight",
                "transformer_blocks.0.txt_mod.1.weight",
                "transformer_blocks.1.img_mod.1.weight",
                "transformer_blocks.1.txt_mod.1.weight",
            ],
        ),
        ("pixart", []),
        ("unet_sd15", []),
        ("unet_sdxl", []),
        ("wan", []),
    ],
)
def test_modulation_of_adaptive_norms_has_8_bits(name: str, modulation: list[str]) -> None:
    layers = architecture(name)
    recipe = Recipe.preset("diffusion", "edge")
    said = {layer: recipe.settings_of(layer, layers[layer]["shape"]) for layer in layers}
    bits = {layer: settings["bit_width"] for layer, settings in said.items() if settings}
    assert sorted(layer for layer in bits if bits[layer] == 8) == sorted(modulation)
    assert set(bits.values()) <= {2, 8}


@pytest.mark.parametrize("preset", ["text", "diffusion", "vision"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("blocks.0.gamma", (64,)),
        ("logit_scale", ()),
        ("blocks.0.gate_up_proj_bias", (4, 64)),
        ("blocks.0.relative_attention_bias.weight", (32, 4)),
        ("blocks.0.relative_position_bias_table", (49, 2)),
        ("blocks.0.q_norm.weight", (4, 64)),
        ("pos_embed", (1, 9, 64)),
    ],
)
def test_every_preset_keeps_what_is_small(preset: str, layer: str, shape: tuple[int, ...]) -> None:
    assert Recipe.preset(preset).settings_of(layer, shape) is None


@pytest.mark.parametrize(
    ("preset", "layer", "quantized"),
    [
        # Qwen2-MoE and DeepSeek-V3
        ("text", "model.layers.3.mlp.gate.weight", False),
        ("text", "model.layers.3.mlp.shared_expert_gate.weight", False),
        ("text", "model.layers.3.mlp.shared_expert.gate_proj.weight", True),
        ("text", "model.layers.3.mlp.shared_experts.down_proj.weight", True),
        ("text", "model.layers.3.self_attn.kv_a_proj_with_mqa.weight", True),
        # gpt-oss
        ("text", "model.layers.3.mlp.router.weight", False),
        ("text", "model.layers.3.mlp.experts.gate_up_proj", True),
        ("text", "model.layers.3.mlp.experts.gate_up_proj_bias", False),
        # Llama as its makers published it
        ("text", "tok_embeddings.weight", False),
        ("text", "layers.0.attention.wq.weight", True),
        ("text", "output.weight", False),
        # GPT-NeoX, Cohere, and heads of classifiers, rankers and readers
        ("text", "gpt_neox.embed_in.weight", False),
        ("text", "embed_out.weight", False),
        ("text", "model.layers.0.self_attn.q_norm.weight", False),
        ("text", "classifier.weight", False),
        ("text", "score.weight", False),
        ("text", "qa_outputs.weight", False),
        # llama.cpp
        ("text", "token_embd.weight", False),
        ("text", "position_embd.weight", False),
        ("text", "blk.0.ffn_gate_inp.weight", False),
        ("text", "blk.0.attn_output.weight", True),
        ("text", "blk.0.ffn_gate.weight", True),
        # A model within a module of such a name is a model like others
        ("text", "embedding_model.encoder.layers.0.fc1.weight", True),
        # DiT, and U-Nets with classes
        ("diffusion", "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight", False),
        (
            "diffusion",
            "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",
            False,
        ),
        ("diffusion", "class_embedding.linear_1.weight", False),
        # Sana and CogVideoX
        ("diffusion", "patch_embed.text_proj.weight", False),
        # An encoder without a head
        ("vision", "pooler.dense.weight", False),
        # timm and torchvision
        ("vision", "patch_embed.proj.weight", False),
        ("vision", "pos_embed", False),
        ("vision", "blocks.0.attn.qkv.weight", True),
        ("vision", "head.weight", False),
        ("vision", "heads.head.weight", False),
        ("vision", "conv_proj.weight", False),
        ("vision", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight", True),
        # SigLIP
        ("vision", "vision_model.head.probe", False),
        ("vision", "vision_model.head.mlp.fc1.weight", False),
        # DINOv2 with registers
        ("vision", "dinov2_with_registers.embeddings.register_tokens", False),
    ],
)
def test_presets_on_names_of_other_models(preset: str, layer: str, quantized: bool) -> None:
    assert (Recipe.preset(preset).settings_of(layer, (64, 64)) is not None) is quantized


@pytest.mark.parametrize("read", [Recipe.from_json, Recipe.from_yaml])
@pytest.mark.parametrize("text", [None, b"{}", 5, []])
def test_text_of_a_wrong_type(read: Any, text: object) -> None:
    assert "must be a str, got" in message(TypeError, lambda: read(text))
