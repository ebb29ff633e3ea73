"""Settings with an encoding: what it fixes, what contradicts it, and where each is said."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import plain

import pyarrowquant
from encoded.fixed import FIXED, OTHERS
from pyarrowquant import Recipe, Rule, Settings, quantize_batch_arrow
from pyarrowquant._core import library
from pyarrowquant._core.options import Options

ROW = plain(["a"], [np.linspace(-1, 1, 512, dtype=np.float32).reshape(1, 512)])
FREE = {"fp8": {"group_size", "scale_dtype"}}


def by_go(settings: dict[str, Any]) -> str:
    """Return what Go says of settings, which nobody has checked before."""
    told = {**json.loads(Options(Settings()).encoded()), **settings}
    try:
        library.validate(ROW.schema, json.dumps(told).encode())
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", FIXED)
def test_what_an_encoding_fixes_need_not_be_said(name: str) -> None:
    result = quantize_batch_arrow(ROW, encoding=name)
    row = {column: result[column][0].as_py() for column in result.column_names}
    fixed = FIXED[name]
    assert (row["bit_width"], row["group_size"]) == (fixed.bit_width, fixed.group_size)
    assert row["encoding"] == name
    assert len(row["levels"] or []) == fixed.levels
    assert (row["zero_points"] is None) == (fixed.levels > 0)
    counts = {"s": 2, "l": 1}
    assert len(row["super_scales"] or []) == counts.get(fixed.supers[:1], 0)
    assert len(row["super_minimums"] or []) == (2 if "m" in fixed.supers else 0)


@pytest.mark.parametrize("field", OTHERS)
@pytest.mark.parametrize("name", FIXED)
def test_python_and_go_fix_the_same(name: str, field: str) -> None:
    right = Settings().with_overrides({"encoding": name})
    assert by_go(vars(right)) == ""
    for value in OTHERS[field]:
        said: Any = {"encoding": name, field: value}
        wrong = {**vars(right), field: value}
        try:
            assert vars(Settings().with_overrides(said)) == wrong
        except ValueError:
            assert by_go(wrong).startswith(f"Invalid {field}: {value}. Encoding '{name}' has ")
        else:
            assert by_go(wrong) == ""


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"bit_width": 4, "encoding": "q6_k"}, "bit_width 4 contradicts encoding 'q6_k', which has 6"),
    ({"group_size": 128, "encoding": "mxfp4"}, "group_size 128 contradicts encoding 'mxfp4'"),
    ({"scale_dtype": "float16", "encoding": "nf4"}, "scale_dtype 'float16' contradicts encoding"),
    ({"zero_point": "float", "encoding": "fp8"}, "zero_point 'float' contradicts encoding 'fp8'"),
    ({"method": "hqq", "encoding": "q4_k"}, "method 'hqq' contradicts encoding 'q4_k'"),
]


@pytest.mark.parametrize(("said", "text"), CONTRADICTIONS, ids=str)
def test_contradictions_name_both(said: dict[str, Any], text: str) -> None:
    encoding = {"encoding": said["encoding"]}
    other = {name: value for name, value in said.items() if name != "encoding"}
    named = r"Recipe rule \('a\*'\)"
    for where, call in {
        "": lambda: quantize_batch_arrow(ROW, **said),
        " ": lambda: pyarrowquant.quantize_stream(ROW, **said),
        "  ": lambda: pyarrowquant.quantize_batch({"a": np.ones(8, np.float32)}, **said),
        f"{named}: ": lambda: Rule("a*", **said),
        "Recipe default: ": lambda: Recipe(default=said),
        r"Recipe rule 1 \('a\*'\), with the default: ": lambda: Recipe(
            [Rule("a*", **other)], default=encoding
        ),
        r"Recipe rule 1 \('b'\), with the settings of the call: ": lambda: quantize_batch_arrow(
            ROW, **encoding, recipe=Recipe([Rule("b", **other)])
        ),
        "Recipe default, with the settings of the call: ": lambda: quantize_batch_arrow(
            ROW, **encoding, recipe=Recipe(default=other)
        ),
        "Candidate 1: ": lambda: Recipe.fit(ROW, 8, [said]),
    }.items():
        with pytest.raises(ValueError, match=f"^{where.strip()} ?{re.escape(text)}") as refused:
            call()
        inherits = where.endswith(("the default: ", "the call: "))
        assert str(refused.value).endswith(", or say encoding 'int' with it") == inherits


def settings_in(result: pa.Table) -> list[tuple[Any, ...]]:
    names = ("encoding", "bit_width", "group_size")
    return list(zip(*(result[name].to_pylist() for name in names), strict=True))


def test_an_encoding_brings_what_it_fixes_wherever_it_is_said() -> None:
    recipe = Recipe(
        [
            Rule("a", encoding="q6_k"),
            Rule("b", encoding="fp8", group_size=64),
            Rule("c", bit_width=2),
        ],
        default={"encoding": "int", "bit_width": 3, "group_size": 64},
    )
    table = pa.concat_tables([ROW.set_column(0, "layer_name", [[name]]) for name in "abcd"])
    assert settings_in(quantize_batch_arrow(table, 8, encoding="int", recipe=recipe)) == [
        ("q6_k", 6, 16),
        ("fp8", 8, 64),
        ("int", 2, 64),
        ("int", 3, 64),
    ]
    assert recipe.settings_of("a", (1, 512)) == {"encoding": "q6_k"}


def test_int_in_a_rule_is_as_by_default_where_the_call_has_an_encoding() -> None:
    recipe = Recipe([Rule("a", encoding="int")])
    result = quantize_batch_arrow(ROW, encoding="q2_k", recipe=recipe)
    assert settings_in(result) == [("int", 4, 128)]
    fp8 = Settings().with_overrides({"encoding": "q2_k"}).with_overrides({"encoding": "fp8"})
    assert fp8 == Settings(8, -1, encoding="fp8")


def test_a_free_scale_dtype_stays_that_of_the_call() -> None:
    recipe = Recipe([Rule("a", encoding="fp8")])
    result = quantize_batch_arrow(ROW, scale_dtype="bfloat16", recipe=recipe)
    by_call = quantize_batch_arrow(ROW, scale_dtype="bfloat16", encoding="fp8")
    assert result.equals(by_call)


@pytest.mark.parametrize("name", FIXED)
def test_recipes_with_encodings_are_what_their_files_say(name: str) -> None:
    recipe = Recipe([Rule("a", encoding=name)], default={"encoding": "int"})
    for again in (
        Recipe.from_dict(recipe.to_dict()),
        Recipe.from_json(recipe.to_json()),
        Recipe.from_yaml(recipe.to_yaml()),
    ):
        assert again == recipe
    assert recipe.to_dict()["rules"] == [{"match": "a", "encoding": name}]
    by_rule = quantize_batch_arrow(ROW, recipe=recipe)
    assert by_rule["quantized_data"].equals(
        quantize_batch_arrow(ROW, encoding=name)["quantized_data"]
    )


def test_an_unknown_encoding_is_refused_with_those_there_are() -> None:
    for call in (
        lambda: quantize_batch_arrow(ROW, encoding="q8_0"),
        lambda: Rule("a", encoding="q8_0"),
        lambda: Recipe.from_json('{"default": {"encoding": "q8_0"}}'),
    ):
        with pytest.raises(ValueError, match=r"encoding.* 'q8_0'.*'int', 'q2_k', .*'fp8'"):
            call()


def test_without_encodings_results_are_as_they_were() -> None:
    columns = ["layer_name", "quantized_data", "scales", "zero_points", "shape", "bit_width"]
    plain_result = quantize_batch_arrow(ROW)
    assert plain_result.column_names == [*columns, "group_size"]
    assert b"encoding" not in plain_result.schema.metadata[b"pyarrowquant"]
    recipe = Recipe([Rule("b", encoding="int")], default={"encoding": "int"})
    assert quantize_batch_arrow(ROW, recipe=recipe).equals(plain_result)


def test_dictionaries_have_what_a_layer_needs() -> None:
    arrays = {name: np.linspace(-1, 1, 64, dtype=np.float32) for name in ("a", "b", "c")}
    recipe = Recipe([Rule("a", encoding="q4_k"), Rule("b", encoding="nf4")])
    found = pyarrowquant.quantize_batch(arrays, recipe=recipe)
    more = {name: set(layer) - set(found["c"]) for name, layer in found.items()}
    assert more == {
        "a": {"encoding", "super_scales", "super_minimums"},
        "b": {"encoding", "levels"},
        "c": set(),
    }
    assert found["b"]["zero_points"] is None
    assert found["b"]["levels"].dtype == np.float32
