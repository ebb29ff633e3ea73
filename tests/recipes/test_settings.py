"""Settings: the bounds are the same in recipes and in calls, and so is what contradicts."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import FrozenInstanceError, replace
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pyarrowquant
from pyarrowquant import Recipe, Rule, Settings
from pyarrowquant._core import library
from pyarrowquant._core.options import Options

VALUES: dict[str, list[Any]] = {
    "bit_width": [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 2**31],
    "group_size": [-8, -2, -1, 0, 1, 7, 8, 12, 16, 128, 2**31 - 8, 2**31 - 1, 2**31, 2**40],
    "method": ["", "rtn", "RTN", "hqq", "mse", "gptq"],
    "zero_point": ["", "integer", "float", "symmetric", "asymmetric"],
    "scale_dtype": ["", "float64", "float32", "float16", "bfloat16", "bf16"],
    "encoding": ["", "int", "INT", "q4_k", "iq4_nl", "nf4", "fp8", "q8_0"],
}
SOME = [
    *({field: value} for field, values in VALUES.items() for value in values),
    *(
        {"method": method, "zero_point": zero_point}
        for method, zero_point in product(VALUES["method"], VALUES["zero_point"])
    ),
    *(
        {"encoding": encoding, field: value}
        for encoding in ("q4_k", "fp8", "iq4_nl")
        for field, values in VALUES.items()
        for value in values
        if field != "encoding"
    ),
]
HQQ = "zero_point 'symmetric' leaves method 'hqq' nothing to choose"


def refused(call: Any) -> bool:
    try:
        call()
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("said", SOME, ids=str)
def test_a_rule_takes_what_a_call_takes(said: dict[str, Any]) -> None:
    table = pa.table({"layer_name": ["a"], "weights": [[1.0, 2.0]]})
    by_call = refused(lambda: pyarrowquant.quantize_batch_arrow(table, **said))
    assert refused(lambda: Settings(**said)) == by_call
    assert refused(lambda: Rule("*", **said)) == by_call
    assert refused(lambda: Recipe(default=said)) == by_call
    assert refused(lambda: Recipe.from_dict({"rules": [{"match": "*", **said}]})) == by_call


@pytest.mark.parametrize("said", SOME, ids=str)
def test_the_core_takes_the_same(said: dict[str, Any]) -> None:
    """It is told what Python would refuse."""
    schema = pa.schema({"layer_name": pa.string(), "weights": pa.list_(pa.float32())})
    brought = vars(Settings(encoding=said["encoding"])) if not refused_alone(said) else {}
    told = json.loads(Options(Settings()).encoded()) | brought | said
    by_core = refused(lambda: library.validate(schema, json.dumps(told).encode()))
    is_fixed = {"zero_point", "scale_dtype"} & said.keys() and said.get("encoding", "int") != "int"
    if not is_fixed:  # which the core does not look at
        assert refused(lambda: Settings(**said)) == by_core


def refused_alone(said: dict[str, Any]) -> bool:
    return "encoding" not in said or refused(lambda: Settings(encoding=said["encoding"]))


def told(call: Any) -> str:
    """What kind of error a call raises, and its text; nothing for none."""
    try:
        call()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("said", SOME, ids=str)
def test_settings_say_what_a_call_says(said: dict[str, Any]) -> None:
    table = pa.table({"layer_name": ["a"], "weights": [[1.0, 2.0]]})
    texts = [
        told(lambda: pyarrowquant.quantize_batch_arrow(table, **said)),
        told(lambda: Settings(**said)),
    ]
    assert texts[0] == texts[1]
    assert "\n" not in texts[0]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"bit_width": "4"}, "bit_width must be an int, got str: '4'"),
        ({"bit_width": 4.0}, "bit_width must be an int, got float: 4.0"),
        ({"bit_width": True}, "bit_width must be an int, got bool: True"),
        ({"group_size": "128"}, "group_size must be an int, 'tensor' or 'block', got str: '128'"),
        ({"method": None}, "method must be a str, got NoneType: None"),
        ({"zero_point": 0}, "zero_point must be a str, got int: 0"),
        ({"scale_dtype": ["float16"]}, "scale_dtype must be a str, got list: ['float16']"),
        ({"encoding": b"nf4"}, "encoding must be a str, got bytes: b'nf4'"),
    ],
)
def test_types_of_settings(said: dict[str, Any], problem: str) -> None:
    for make in (Settings, pyarrowquant.Settings().with_overrides):
        with pytest.raises(TypeError) as caught:
            make(**said) if make is Settings else make(said)
        assert str(caught.value) == problem
        assert isinstance(caught.value, ValueError)
    if None not in said.values():
        with pytest.raises(TypeError, match=re.escape(problem)):
            Rule("*", **said)
        with pytest.raises(TypeError, match=re.escape(problem)):
            Recipe.from_dict({"default": said})


def test_settings_have_what_their_encoding_fixes() -> None:
    assert Settings(encoding="q4_k") == Settings().with_overrides({"encoding": "q4_k"})
    assert Settings(encoding="fp8", group_size="block").group_size == "block"
    found = Settings(encoding="mxfp4")
    assert (found.bit_width, found.group_size) == (4, 32)
    with pytest.raises(ValueError, match="group_size 128 contradicts encoding 'q4_k'"):
        Settings(encoding="q4_k", group_size=128)
    with pytest.raises(ValueError, match=f"Invalid {HQQ.replace(' ', ': ', 1)}"):
        replace(Settings(method="hqq"), zero_point="symmetric")


def test_numbers_of_numpy_become_plain() -> None:
    settings = Settings(bit_width=np.int8(8), group_size=np.int64(64))
    assert repr(settings) == repr(Settings(8, 64))
    assert settings == Settings(8, 64)


def test_a_rule_that_contradicts_itself_is_named() -> None:
    with pytest.raises(ValueError, match=rf"Recipe rule \('a\*'\): {HQQ}"):
        Rule("a*", method="hqq", zero_point="symmetric")


def test_a_rule_that_contradicts_the_default_is_named() -> None:
    rules = [Rule("a*", method="mse"), Rule("b*", method="hqq")]
    with pytest.raises(ValueError, match=rf"Recipe rule 2 \('b\*'\), with the default: {HQQ}"):
        Recipe(rules, default={"zero_point": "symmetric"})


def test_settings_are_values() -> None:
    settings = Settings(bit_width=8, method="mse")
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert {settings: 1}[Settings(bit_width=8, method="mse")] == 1
    with pytest.raises(FrozenInstanceError):
        settings.bit_width = 4  # type: ignore[misc]


def test_defaults_are_those_of_a_call() -> None:
    table = pa.table({"layer_name": ["a"], "weights": [[1.0, 2.0, 5.0]]})
    said = vars(Settings())
    assert pyarrowquant.quantize_batch_arrow(table, **said).equals(
        pyarrowquant.quantize_batch_arrow(table)
    )
