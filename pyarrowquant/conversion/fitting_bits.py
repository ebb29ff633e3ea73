"""Bits that follow from measuring layers first: for a budget, or for a floor of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from pyarrowquant._core.settings import Settings
from pyarrowquant.conversion.measuring import Measuring
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.quantizing import fitting
from pyarrowquant.conversion.splitting import choices_of
from pyarrowquant.conversion.stage import Run
from pyarrowquant.conversion.task import Task
from pyarrowquant.errors import LayerError
from pyarrowquant.formats._fused import sets_of
from pyarrowquant.recipes.fitting import check_budget, chosen, to_measure
from pyarrowquant.recipes.measuring import Costs
from pyarrowquant.recipes.plan import wider
from pyarrowquant.recipes.planned import PlannedLayer
from pyarrowquant.recipes.recipe import Recipe


def is_fitted(task: Task) -> bool:
    """Whether layers are measured first: for a budget, and where a floor is for several."""
    if task.budget is not None:
        return True
    names = [layer.name for layer in task.layers if layer.settings and layer.name]
    return task.quality_floor is not None and bool(sets_of(names, task.target.one_scheme))


def fit(task: Task, run: Run, meter: Meter) -> tuple[Recipe, list[LayerError]]:
    """Have the choices of layers measured, and choose."""
    rows = [(layer.name, layer.shape) for layer in task.layers]
    found = to_measure(rows, _choices(task), task.settings, task.recipe)
    weigh = task.target.error_weights(task.source)
    if weigh is not None:
        for layer in found.values():
            layer.weight = weigh(layer.name, layer.shape)
    check_budget(found, task.budget, task.target.one_scheme)
    measuring = Measuring(
        task.batch_bytes,
        {name: layer.choices for name, layer in found.items()},
        task.quality_floor or {},
        task.continue_on_error,
        task.origin.importance,
    )
    costs: dict[str, Costs] = {}
    skipped: list[LayerError] = []
    with closing(run(measuring, 0, meter)) as outcomes:
        for outcome in outcomes:
            costs |= outcome.costs
            skipped += outcome.skipped
    best = chosen(
        found,
        costs,
        task.budget,
        "squared_error" if weigh is None else "relative_error",
        task.quality_floor,
        task.target.one_scheme,
    )
    return Recipe(best.rules, "skip", expected=best.expected), skipped


def _choices(task: Task) -> Callable[[Sequence[int], Settings], dict[Settings, int]]:
    """Return what says what may be chosen for a layer, and the bits it takes of the budget."""
    budget = task.budget
    choices = choices_of(task.target, task.source, task.origin)

    def of_layer(shape: Sequence[int], settings: Settings) -> dict[Settings, int]:
        if budget is None:
            wider_ones = widened(task, settings, shape)
            return {each: task.target.stored_bits(shape, each) for each in wider_ones}
        found = choices(settings, shape)
        return {each: budget.of_layer(task.target.stored_bits(shape, each)) for each in found}

    return of_layer


def _fitting(task: Task, settings: Settings, shape: Sequence[int]) -> Settings | None:
    return fitting(task.target, task.source, task.settings, settings, shape)


def widened(task: Task, settings: Settings, shape: Sequence[int]) -> list[Settings]:
    """Return what a floor may choose for a layer, the narrowest first."""
    found, following = [settings], wider(settings, task.target.bit_widths)
    while following is not None and (fits := _fitting(task, following, shape)) is not None:
        found.append(fits)
        following = wider(following, task.target.bit_widths)
    return found


def widest(task: Task, layer: PlannedLayer) -> PlannedLayer:
    """Return a layer with what a floor may choose for it at most."""
    if task.quality_floor is None or layer.settings is None:
        return layer
    return replace(layer, settings=widened(task, layer.settings, layer.shape)[-1])
