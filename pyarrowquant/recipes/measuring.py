"""What each choice of a layer leaves to it, measured on weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pyarrowquant._core.measure import SKIP, measure
from pyarrowquant._core.options import Options
from pyarrowquant._core.progress import Reporter
from pyarrowquant._core.rows import layers
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.source import weights_bytes
from pyarrowquant.errors import (
    LayerError,
    QuantizationError,
    SkippedLayerWarning,
    users_level,
)
from pyarrowquant.recipes.floor import missed_bound

Choices = Mapping[str, Sequence[Settings]]  # by the names of layers, "" for one without


@dataclass
class Costs:
    """What a layer has with each of its choices.

    Attributes
    ----------
    squared_errors : list of float
    weighted_errors : list of float
        What a budget goes by: these as well, where columns weigh the same.
    norm : float
        Sum of squared weights.
    passes : list of bool
        Whether each choice passes the floor.
    """

    squared_errors: list[float]
    weighted_errors: list[float]
    norm: float
    passes: list[bool]


def rounds_of(choices: Choices) -> int:
    """Return how often layers are measured."""
    return max(map(len, choices.values()), default=0)


def measured(
    data: pa.Table,
    options: Options,
    choices: Choices,
    floor: Mapping[str, float],
    continue_on_error: bool,
    reporter: Reporter | None,
) -> tuple[dict[str, Costs], list[LayerError]]:
    """Measure the layers of a table that have choices.

    Returns
    -------
    dict of str to Costs
        By names; of layers that failed there are none.
    list of LayerError
        What is wrong with these.

    Raises
    ------
    QuantizationError
        Some failed, without `continue_on_error`.
    """
    found = {
        row: (name or "", choices[name or ""])
        for row, (name, _) in enumerate(layers(data))
        if (name or "") in choices
    }
    shapes = {row: shape for row, (_, shape) in enumerate(layers(data)) if row in found}
    every = list(dict.fromkeys(settings for _, said in found.values() for settings in said))
    positions = {settings: position for position, settings in enumerate(every)}
    costs = {name: Costs([], [], 0.0, []) for name, _ in found.values()}
    skipped: list[LayerError] = []
    for number in range(rounds_of(choices)):
        if reporter is not None:
            reporter.start(weights_bytes(data))
        wanted = [row for row, (_, said) in found.items() if number < len(said)]
        if not wanted:
            continue
        rows = [SKIP] * data.num_rows
        for row in wanted:
            rows[row] = positions[found[row][1][number]]
        errors, result = measure(data, options, every, rows, wanted, reporter)
        if result.skipped and not continue_on_error:
            raise _error(result.skipped)
        for error in result.skipped:
            warnings.warn(
                f"Skipped: {error.message}", SkippedLayerWarning, stacklevel=users_level()
            )
            del costs[found.pop(error.row)[0]]
        skipped += result.skipped
        for row, each in errors.items():
            cost = costs[found[row][0]]
            cost.passes.append(not missed_bound(each, floor))
            weights = math.prod(shapes[row])
            cost.squared_errors.append(each["mse"] * weights)
            cost.weighted_errors.append(each["weighted_mse"] * weights)
            cost.norm = each["norm"] ** 2
    for cost in costs.values():
        cost.weighted_errors = as_large_as(cost.squared_errors, cost.weighted_errors)
    return costs, skipped


def as_large_as(squared_errors: Sequence[float], weighted_errors: Sequence[float]) -> list[float]:
    """Return weighted errors multiplied so that the least of a layer is the unweighted one.

    How much a layer matters beside others was measured with noise that is alike in all columns, and
    the finest choice leaves errors like that. Importance says how much worse the other choices are.
    Errors that were weighted alone would be small in layers where single tokens bring some columns
    far larger inputs than all others, at the cost of all other tokens.
    """
    pairs = [pair for pair in zip(squared_errors, weighted_errors, strict=True) if min(pair) > 0]
    squared, weighted = min(pairs, default=(1.0, 1.0))
    return [error * (squared / weighted) for error in weighted_errors]


def _error(failed: list[LayerError]) -> QuantizationError:
    lines = [error.message for error in failed]
    if len(failed) > 1:
        lines = [f"{len(failed)} layers failed:", *lines]
    return QuantizationError("\n".join(lines), failed)
