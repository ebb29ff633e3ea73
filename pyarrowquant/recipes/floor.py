"""The least quality that layers must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def missed_bound(errors: Mapping[str, Any], floor: Mapping[str, float]) -> str:
    """Say which bound the errors of a layer, weighted by importance, miss, or nothing."""
    relative, cosine = errors["weighted_relative_error"], errors["weighted_cosine"]
    same = relative == errors["relative_error"] and cosine == errors["cosine"]
    by = "" if same else " by importance"
    exact = relative == 0  # where the cosine may be rounded below 1
    if not exact and cosine < floor.get("cosine", -1):
        return f"cosine {cosine:.9g}{by}, below the quality_floor of {floor['cosine']:.15g},"
    if relative > floor.get("relative_error", float("inf")):
        return (
            f"relative_error {relative:.9g}{by}, above the quality_floor of "
            f"{floor['relative_error']:.15g},"
        )
    return ""
