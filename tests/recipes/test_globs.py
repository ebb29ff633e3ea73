"""Globs of recipes: what they match, and that their translation takes linear time."""

from __future__ import annotations

import fnmatch
import itertools
import re
import time

import pytest

from pyarrowquant import Recipe, Rule


def test_they_match_what_fnmatch_matches() -> None:
    """All short globs of what is special, on all short names."""
    names = ["".join(name) for size in range(4) for name in itertools.product("[]!a-", repeat=size)]
    globs = (
        "".join(glob) for size in range(1, 6) for glob in itertools.product("[]!*a", repeat=size)
    )
    for glob in globs:
        rule = Rule(glob)
        expected = set(filter(re.compile(fnmatch.translate(glob)).match, names))
        assert {name for name in names if rule.matches(name, (2, 2))} == expected, glob


@pytest.mark.parametrize("glob", ["[", "*[", "[]", "[!]", "a[b]*["])
def test_many_brackets(glob: str) -> None:
    """A hundred thousand take a moment; where each is looked for in the rest, minutes."""
    many = glob * (100_000 // len(glob))
    rule = Recipe.from_json(f'{{"rules": [{{"match": "{many}", "skip": true}}]}}').rules[0]
    begin = time.process_time()
    rule.matches("layer", (2, 2))
    assert time.process_time() - begin < 30
