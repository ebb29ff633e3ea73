"""Settings: the bounds are the same in recipes and in calls, and so is what contradicts."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from itertools import product
from typing import Any

import pyarrow as pa
import pytest

import pyarrowquant
from pyarrowquant import Recipe, Rule, Settings

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
    assert refused(lambda: Rule("*", **said)) == by_call
    assert refused(lambda: Recipe(default=said)) == by_call
    assert refused(lambda: Recipe.from_dict({"rules": [{"match": "*", **said}]})) == by_call


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
