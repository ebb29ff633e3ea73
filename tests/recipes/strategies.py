"""Recipes of any rules."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from pyarrowquant import Recipe, Rule

SETTINGS = {
    "bit_width": [2, 3, 4, 5, 6, 8],
    "group_size": [-1, 8, 128, 2147483640],
    "method": ["rtn", "hqq", "mse"],
    "zero_point": ["integer", "float", "symmetric"],
    "scale_dtype": ["float32", "float16", "bfloat16"],
    "encoding": ["int"],
}

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
