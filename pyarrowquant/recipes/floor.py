"""The least quality that layers must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def missed_bound(errors: Mapping[str, Any], floor: Mapping[str, float]) -> str:
    """Say which bound the errors of a layer miss, or nothing."""
    exact = errors["relative_error"] == 0  # where the cosine may be rounded below 1
    if not exact and errors["cosine"] < floor.get("cosine", -1):
        return f"cosine {errors['cosine']:.9g}, below the quality_floor of {floor['cosine']:.15g},"
    if errors["relative_error"] > floor.get("relative_error", float("inf")):
        return (
            f"relative_error {errors['relative_error']:.9g}, above the quality_floor of "
            f"{floor['relative_error']:.15g},"
        )
    return ""
