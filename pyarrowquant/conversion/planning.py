"""What becomes of the layers of a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pyarrowquant._core.settings import Settings
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._fused import sets_of
from pyarrowquant.formats._rules import preceded
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.budget import Budget
from pyarrowquant.recipes.by_name import escaped, rules_by_name
from pyarrowquant.recipes.planned import PlannedLayer, plan_layer
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule


def planned(model: Model, settings: Settings, recipe: Recipe | None) -> list[PlannedLayer]:
    """List the layers of a model, and what becomes of them."""
    return [
        plan_layer(tensor.name, tensor.shape, settings, recipe)
        for tensor in model.all_tensors
        if model.can_quantize(tensor)
    ]


def with_instead(
    target: Format, layers: Sequence[PlannedLayer], recipe: Recipe | None
) -> tuple[Recipe | None, list[PlannedLayer], dict[Settings, list[str]]]:
    """Give layers whose rows do not fit their settings those that the format has instead.

    Returns
    -------
    Recipe or None
        With rules for such layers.
    list of PlannedLayer
        All layers, with what they get.
    dict of Settings to list of str
        The names of such layers, by what they get.
    """
    names: dict[Settings, list[str]] = {}
    changed = []
    for layer in layers:
        settings = layer.settings
        if settings is not None and 0 not in layer.shape:
            settings = target.instead(settings, layer.shape)
        other = replace(layer, settings=settings)
        if settings is None or settings == layer.settings or not target.takes_shape(other):
            changed.append(layer)
            continue
        names.setdefault(settings, []).append(str(layer.name))
        changed.append(other)
    return (
        preceded(rules_by_name((each, got) for got, each in names.items()), recipe),
        changed,
        names,
    )


def with_largest(
    target: Format, budget: Budget, layers: Sequence[PlannedLayer], recipe: Recipe | None
) -> Recipe | None:
    """Return the recipe that gives layers the settings that they are planned with.

    These are the largest that a budget may choose. None where it does not hold them all, so that
    something is left to choose.
    """
    wanted: dict[Settings, list[str]] = {}
    bits = weights = 0
    for layer in layers:
        if layer.settings is not None:
            wanted.setdefault(layer.settings, []).append(str(layer.name))
            bits += budget.of_layer(target.stored_bits(layer.shape, layer.settings))
            weights += layer.weights
    if budget.bits(weights) < bits:
        return None
    return preceded(rules_by_name((names, got) for got, names in wanted.items()), recipe)


def with_one_scheme(
    target: Format, layers: Sequence[PlannedLayer], recipe: Recipe | None
) -> tuple[Recipe | None, list[PlannedLayer], list[str]]:
    """Give layers that the engine joins the same settings: those of the most bits, or none.

    Returns
    -------
    Recipe or None
        With rules for layers that get others than they had.
    list of PlannedLayer
        All layers, with what they get.
    list of str
        The names of such layers.
    """
    by_name = {layer.name: layer for layer in layers if layer.name is not None}
    changed: dict[str, Settings | None] = {}
    for names in sets_of(by_name, target.one_scheme):
        found = dict.fromkeys(by_name[name].settings for name in names)
        if len(found) > 1:
            most = None if None in found else max(filter(None, found), key=_bits_a_weight(target))
            changed |= {name: most for name in names if by_name[name].settings != most}
    kept = [name for name, settings in changed.items() if settings is None]
    reason = "engines join them to layers that are not quantized"
    rule = Rule([escaped(name) for name in kept] or None, skip=True, reason=reason)
    given: dict[Settings, list[str]] = {}
    for name, settings in changed.items():
        if settings is not None:
            given.setdefault(settings, []).append(name)
    rules = rules_by_name((each, settings) for settings, each in given.items())
    left = [
        replace(
            layer,
            settings=changed[layer.name],
            rule=rule if changed[layer.name] is None else layer.rule,
        )
        if layer.name in changed
        else layer
        for layer in layers
    ]
    return preceded([*([rule] if kept else []), *rules], recipe), left, list(changed)


def _bits_a_weight(target: Format) -> Callable[[Settings], float]:
    shape = (1024, 1024)  # of which all settings have whole groups
    return lambda settings: target.stored_bits(shape, settings)


def with_ragged_kept(
    target: Format, layers: Sequence[PlannedLayer], recipe: Recipe | None
) -> tuple[Recipe | None, list[PlannedLayer], list[str]]:
    """Leave out layers that the format does not take for their shape.

    Returns
    -------
    Recipe or None
        With rules for such layers.
    list of PlannedLayer
        All layers, these left out.
    list of str
        Their names.
    """
    names = [str(layer.name) for layer in layers if not target.takes_shape(layer)]
    # One rule, which looks names up.
    reason = "the format does not take their shape"
    rule = Rule([escaped(name) for name in names] or None, skip=True, reason=reason)
    first = [rule] if names else []
    lost = frozenset(names)
    left = [
        replace(layer, settings=None, rule=rule) if layer.name in lost else layer
        for layer in layers
    ]
    return preceded(first, recipe), left, names
