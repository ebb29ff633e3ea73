"""Layers that engines join to one while they load, by their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable

# The last part of the names of modules whose rows an engine puts below one another.
_JOINED = (
    ("q_proj", "k_proj", "v_proj"),
    ("wq", "wk", "wv"),
    ("query", "key", "value"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
    ("in_proj_qkv", "in_proj_z"),
    ("in_proj_b", "in_proj_a"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
)
_SETS = {part: "+".join(parts) for parts in _JOINED for part in parts}
_MODULE = re.compile(r"(?P<parent>(?:.*\.)?)(?P<part>[^.]+)\.weight")
_EXPERTS = re.compile(r"(?P<experts>(?:.*\.)?experts)\.\d+\..*")


def joined_as(name: str) -> str | None:
    """Return a name of the layer that this one is a part of; None for one that stands alone."""
    found = _MODULE.fullmatch(name)
    joined = None if found is None else _SETS.get(found["part"])
    return None if found is None or joined is None else found["parent"] + joined


def one_scheme(name: str) -> str | None:
    """Return a name of the layers that have one scheme: what is joined, and experts of a block."""
    experts = _EXPERTS.fullmatch(name)
    return joined_as(name) if experts is None else experts["experts"]


def sets_of(names: Iterable[str], set_of: Callable[[str], str | None]) -> list[list[str]]:
    """Return the sets of more than one of these layers."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        key = set_of(name)
        if key is not None:
            found[key].append(name)
    return [each for each in found.values() if len(each) > 1]
