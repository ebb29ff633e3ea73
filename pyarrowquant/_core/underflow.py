"""Groups of weights that are too close to each other for the type of their scale."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.errors import users_level


@dataclass(frozen=True)
class Underflow:
    """A layer that has groups whose scale `scale_dtype`, or its encoding, rounds to 0.

    All weights of such a group decode to one value: 0 if that is within their range, else its
    middle.

    Attributes
    ----------
    layer_name : str
    groups : int
        How many groups these are.
    """

    layer_name: str
    groups: int


def underflow_text(found: Sequence[Underflow]) -> str:
    """Say how many groups have no scale, and in which layers."""
    groups = sum(each.groups for each in found)
    names = first_few([quoted(each.layer_name) for each in found])
    several, layers = "" if groups == 1 else "s", "layer" if len(found) == 1 else "layers"
    have = "has" if groups == 1 else "have"
    return (
        f"{groups} group{several} of the {layers} {names} {have} a scale that its type "
        "rounds to 0. The weights of such a group decode to one value, 0 if that is within their "
        "range"
    )


def warn_of_underflows(found: Sequence[Underflow]) -> None:
    if found:
        way_out = "scale_dtype='float32' keeps them apart with encoding 'int'"
        text = f"{underflow_text(found)}. {way_out}"
        warnings.warn(text, UserWarning, stacklevel=users_level())
