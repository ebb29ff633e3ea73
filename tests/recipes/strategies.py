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
}

names = st.text("ab.[]*?!-\n", max_size=5)
shapes = st.lists(st.integers(0, 20), max_size=3)
settings = st.fixed_dictionaries(
    {}, optional={field: st.sampled_from(values) for field, values in SETTINGS.items()}
)


@st.composite
def rules(draw: st.DrawFn, patterns: st.SearchStrategy[str] = names) -> Rule:
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


recipes = st.builds(
    Recipe,
    st.lists(rules(st.text(max_size=6)), max_size=4),
    st.none() | st.just("skip") | settings,
    st.none() | st.text(max_size=6),
)
