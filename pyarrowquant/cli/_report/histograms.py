"""Where weights lie on the grid of their codes, and how often each code is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyarrowquant._core.results import Packed
from pyarrowquant.cli._originals import Originals
from pyarrowquant.cli._report.layers import Layer, codes, pieces

_MOST_BINS_A_CODE = 16
_BINS = 256  # about so many over all codes


@dataclass(frozen=True)
class Histogram:
    """Percentages of a layer's weights, by code and by where the original weights lie.

    Attributes
    ----------
    layer : Layer
    codes : list of float
        Per cent of the weights with code 0, 1, ...
    edges, density : list of float, or None
        Edges of bins in code units, weight / scale + zero_point, and per cent of the original
        weights in a bin, per unit. Weights beyond the outer edges are in the outer bins. None
        without the original weights.
    clipped : float or None
        Per cent of the original weights more than half a step outside of the codes' range.
    """

    layer: Layer
    codes: list[float]
    edges: list[float] | None
    density: list[float] | None
    clipped: float | None


def histogram(layer: Layer, packed: Packed, originals: Originals | None) -> Histogram:
    """Count some rows at a time."""
    levels = 2**packed.bits
    used = np.zeros(levels, np.int64)
    for rows in pieces(packed):
        used += np.bincount(codes(packed, rows).ravel(), minlength=levels)
    percentages = (100 * used / layer.weights).tolist()
    if originals is None:
        return Histogram(layer, percentages, None, None, None)

    margin = max(1, levels // 8)
    a_code = min(_MOST_BINS_A_CODE, max(1, _BINS // levels))
    low, high = -0.5 - margin, levels - 0.5 + margin
    bins = (levels + 2 * margin) * a_code
    counts = np.zeros(bins, np.int64)
    clipped = 0
    parts = originals.weights(layer.layer_name, packed.columns, pieces(packed))
    for rows, weights in zip(pieces(packed), parts, strict=True):
        units = _code_units(packed, rows, weights)
        clipped += int(((units < -0.5) | (units > levels - 0.5)).sum())
        positions = (np.clip(units, low, high).astype(np.float64) - low) * a_code
        inside = np.minimum(positions.astype(np.int64), bins - 1)
        counts += np.bincount(inside.ravel(), minlength=bins)  # faster than np.histogram
    density = 100 * counts * a_code / layer.weights
    edges = np.linspace(low, high, bins + 1).tolist()
    return Histogram(layer, percentages, edges, density.tolist(), 100 * clipped / layer.weights)


def _code_units(packed: Packed, rows: slice, weights: Any) -> Any:
    """Compute weight / scale + zero_point, which codes round."""
    group_of = np.arange(packed.columns) // packed.group
    with np.errstate(over="ignore"):
        units = weights / packed.scales[rows][:, group_of]
        units += packed.zero_points[rows][:, group_of]
    return units
