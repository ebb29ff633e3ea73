"""What a fitted recipe is expected to give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from pyarrowquant._core.arguments import wrong_type
from pyarrowquant._core.quoting import quoted
from pyarrowquant.recipes.rule import check_dict, check_known


@dataclass(frozen=True)
class Expected:
    """What a fitted recipe gives on the table that it was fitted on.

    Attributes
    ----------
    bits_per_weight : float
        Codes, scales and zero-points of all layers that the recipe does not skip.
    squared_error : float
        Sum of the squared errors of all their weights.
    relative_error : float
        ||w - w'|| / ||w|| of all these weights together.
    """

    bits_per_weight: float
    squared_error: float
    relative_error: float


def expected_from(said: object) -> Expected:
    """Read what a recipe's file says; every field must be a number."""
    where = "Recipe: expected"
    values: Mapping[str, object] = check_dict(where, said)
    names = [field.name for field in fields(Expected)]
    check_known(where, values, names)
    numbers = {}
    for name in names:
        value = values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_type(f"{where}: {name} must be a number", value)
        try:
            numbers[name] = float(value)
        except OverflowError:
            raise ValueError(f"{where}: {name} {quoted(value)} is beyond a float64") from None
    return Expected(**numbers)
