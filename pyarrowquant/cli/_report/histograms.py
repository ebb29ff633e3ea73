"""Where weights lie on the grid of their codes, and how often each code is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyarrowquant._core.results import Packed
from pyarrowquant.cli._originals import Originals
from pyarrowquant.cli._report.layers import Layer, codes, levels_of, pieces

_MOST_BINS_A_CODE = 16
_BINS = 256  # about so many over all codes


@dataclass(frozen=True)
class Histogram:
    """Percentages of a layer's weights, by level and by where the original weights lie.

    Levels are what codes stand for: the codes themselves, or those of the encoding.

    Attributes
    ----------
    layer : Layer
    levels : list of float
        From the least on.
    codes : list of float
        Per cent of the weights with a code of each level.
    edges, density : list of float, or None
        Edges of bins in units of levels, weight / scale + zero_point, and per cent of the original
        weights in a bin, per step of the mean width. Weights beyond the outer edges are in the
        outer bins. None without the original weights.
    clipped : float or None
        Per cent of the original weights more than half a step outside of the levels.
    """

    layer: Layer
    levels: list[float]
    codes: list[float]
    edges: list[float] | None
    density: list[float] | None
    clipped: float | None


def histogram(layer: Layer, packed: Packed, originals: Originals | None) -> Histogram:
    """Count some rows at a time."""
    used = np.zeros(2**packed.bits, np.int64)
    for rows in pieces(packed):
        used += np.bincount(codes(packed, rows).ravel(), minlength=len(used))
    of_codes = levels_of(packed)
    finite = np.isfinite(of_codes)  # some floating-point formats have codes for NaN
    levels, places = np.unique(of_codes[finite].astype(np.float64), return_inverse=True)
    uses = np.bincount(places, used[finite])
    shown = levels.tolist(), (100 * uses / layer.weights).tolist()
    if originals is None:
        return Histogram(layer, *shown, None, None, None)

    least = levels[0] - (levels[1] - levels[0]) / 2
    most = levels[-1] + (levels[-1] - levels[-2]) / 2
    step = (most - least) / len(levels)
    margin = max(1, len(levels) // 8)
    a_code = min(_MOST_BINS_A_CODE, max(1, _BINS // len(levels)))
    low, high = least - margin * step, most + margin * step
    bins = (len(levels) + 2 * margin) * a_code
    counts = np.zeros(bins, np.int64)
    clipped = 0
    parts = originals.weights(layer.layer_name, packed.columns, pieces(packed))
    for rows, weights in zip(pieces(packed), parts, strict=True):
        units = _code_units(packed, rows, weights)
        clipped += int(((units < least) | (units > most)).sum())
        positions = (np.clip(units, low, high).astype(np.float64) - low) * (a_code / step)
        inside = np.minimum(positions.astype(np.int64), bins - 1)
        counts += np.bincount(inside.ravel(), minlength=bins)  # faster than np.histogram
    density = 100 * counts * a_code / layer.weights
    edges = np.linspace(low, high, bins + 1).tolist()
    return Histogram(layer, *shown, edges, density.tolist(), 100 * clipped / layer.weights)


def _code_units(packed: Packed, rows: slice, weights: Any) -> Any:
    """Compute weight / scale + zero_point, which levels round; 0 where all decodes to 0."""
    group_of = np.arange(packed.columns) // packed.group
    scales = np.where(packed.scales[rows] == 0, np.float32(np.inf), packed.scales[rows])
    with np.errstate(over="ignore"):
        units = weights / scales[:, group_of]
        units += packed.zero_points[rows][:, group_of]
    return units
