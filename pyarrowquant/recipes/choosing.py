"""Which of its choices each measured layer gets, alone or with others, within a budget of bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pyarrowquant._core import library
from pyarrowquant._core.settings import Settings
from pyarrowquant.recipes.budget import Budget


@dataclass
class MeasuredLayer:
    """What a layer may have, and what each choice takes and leaves to it."""

    name: str
    shape: Sequence[int]
    weight: float
    choices: list[Settings]
    bits: list[int]
    squared_errors: list[float] = field(default_factory=list)
    weighted_errors: list[float] = field(default_factory=list)  # by the importance of columns
    norm: float = 0.0  # sum of squared weights
    passes: list[bool] = field(default_factory=list)  # the floor, with each of the choices


@dataclass(frozen=True)
class Unit:
    """Layers that get the same of their choices, which are the same."""

    layers: list[MeasuredLayer]

    @property
    def bits(self) -> list[int]:
        """What they take with each choice."""
        return [sum(bits) for bits in zip(*(layer.bits for layer in self.layers), strict=True)]


def units_of(found: list[MeasuredLayer], together: Callable[[str], str | None]) -> list[Unit]:
    """Return the layers, those with the same name of `together` and the same choices as one."""
    units: dict[tuple[str, tuple[Settings, ...]], list[MeasuredLayer]] = {}
    alone = []
    for layer in found:
        key = together(layer.name)
        if key is None:
            alone.append([layer])
        else:
            units.setdefault((key, tuple(layer.choices)), []).append(layer)
    return [Unit(layers) for layers in (*alone, *units.values())]


def keep_passing(units: list[Unit]) -> None:
    """Leave out choices with which layers miss the floor; of units that always do, all but one."""
    for unit in units:
        bits = unit.bits
        passes = [all(each) for each in zip(*(layer.passes for layer in unit.layers), strict=True)]
        last = max(range(len(bits)), key=bits.__getitem__)
        kept = [k for k, passing in enumerate(passes) if passing] or [last]
        for layer in unit.layers:
            layer.choices = [layer.choices[k] for k in kept]
            layer.bits = [layer.bits[k] for k in kept]
            layer.squared_errors = [layer.squared_errors[k] for k in kept]
            layer.weighted_errors = [layer.weighted_errors[k] for k in kept]


def least_bits(units: list[Unit]) -> list[int]:
    """Choose the least bits."""
    return [min(range(len(unit.bits)), key=unit.bits.__getitem__) for unit in units]


def bits_of_all(units: list[Unit], budget: Budget | None, floor: object = None) -> int | None:
    """Return the bits of all layers together; None for the least."""
    if budget is None:
        return None
    weights = sum(math.prod(layer.shape) for unit in units for layer in unit.layers)
    least = sum(min(unit.bits) for unit in units)
    bits = budget.bits(weights)
    if bits < least:
        raise budget.too_small(weights, least, bool(floor))
    return bits


def allocated(units: list[Unit], bits: int, objective: str) -> list[int]:
    """Choose the least error within so many bits."""

    def weight(layer: MeasuredLayer) -> float:
        if objective == "relative_error":
            return layer.weight / layer.norm if layer.norm else 0.0
        return layer.weight

    costs = [
        [
            {
                "bits": each,
                "error": sum(weight(layer) * layer.weighted_errors[k] for layer in unit.layers),
            }
            for k, each in enumerate(unit.bits)
        ]
        for unit in units
    ]
    if not all(math.isfinite(cost["error"]) for layer in costs for cost in layer):
        raise ValueError("The weighted errors of layers are beyond float64; use smaller weights")
    return library.allocate(costs, bits)
