"""What is said of layers that get other settings than those that are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import chain

from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.quoting import first_few, first_names
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.shapes import product
from pyarrowquant.conversion.unquantized import UnquantizedTensor
from pyarrowquant.errors import UnquantizedTensorWarning, users_level
from pyarrowquant.formats._format import Format
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.planned import PlannedLayer
from pyarrowquant.recipes.presets import PRESETS, SENSITIVE
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import rule_label

_OF_PRESETS = frozenset(chain(SENSITIVE, *PRESETS.values()))


def warn_of_unused(recipe: Recipe | None, model: Model) -> None:
    """Warn of rules that match no tensor; those of presets are for many models."""
    own = [
        (number, rule)
        for number, rule in enumerate(() if recipe is None else recipe.rules, 1)
        if rule not in _OF_PRESETS
    ]
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for tensor in model.all_tensors if own else ():
        for name in (tensor.name, *model.also_called(tensor)):
            shapes.setdefault(name, []).append(tensor.shape)
    unused = [
        rule_label(rule.said, number)
        for number, rule in own
        if not any(
            rule.matches(name, shape)
            for name in (rule.plain_names if rule.is_by_name else shapes)
            for shape in shapes.get(name, ())
        )
    ]
    if unused:
        warnings.warn(
            f"No layer matches: {first_few(unused, separator='; ')}",
            UserWarning,
            stacklevel=users_level(),
        )


def warn_of_instead(names: Mapping[Settings, Sequence[str]]) -> None:
    """Say which layers get other settings than they were to have, for their columns."""
    for settings, layers in names.items():
        what = settings.encoding if settings.encoding != INTEGER else f"{settings.bit_width} bits"
        warnings.warn(
            f"Their rows are no whole blocks or groups, so these get {what} in groups of "
            f"{settings.group_size} instead: {first_names(layers)}",
            UserWarning,
            stacklevel=users_level(),
        )


def warn_of_ragged(names: Sequence[str], model: Model, target: Format) -> None:
    """Say which layers are not quantized for their shape, and have a place or cannot have one."""
    tensors = {tensor.name: tensor for tensor in model.all_tensors}
    kept = [name for name in names if name in tensors and target.keeps(tensors[name], model)]
    lost = [
        name
        for name in names
        if name not in kept and (name not in tensors or target.lacks(tensors[name]) is None)
    ]
    for what, found in (("Kept", kept), ("Left out", lost)):
        if found:
            _warn_of_unquantized(f"{what}, as the format does not take their shape", found)


def warn_of_lacking(model: Model, target: Format, unquantized: Sequence[UnquantizedTensor]) -> None:
    """Say which tensors are left out as the format has no place for any of their kind."""
    left = {tensor.name for tensor in unquantized if not tensor.kept}
    names: dict[str, list[str]] = {}
    for tensor in model.all_tensors:
        if tensor.name in left and (lacking := target.lacks(tensor)):
            names.setdefault(lacking, []).append(tensor.name)
    for lacking, found in names.items():
        _warn_of_unquantized(f"Left out, as the format has no {lacking}", found)


def _warn_of_unquantized(what: str, names: Sequence[str]) -> None:
    warnings.warn(
        f"{what}: {first_names(names)}", UnquantizedTensorWarning, stacklevel=users_level()
    )


def warn_of_joined(layers: Sequence[PlannedLayer], target: Format) -> None:
    """Say which layers get other settings than they were to have, for the engine joins them."""
    same = [str(layer.name) for layer in layers if layer.settings is not None]
    kept = [str(layer.name) for layer in layers if layer.settings is None]
    engines = f"Engines of {target.name} join these to layers"
    if same:
        warnings.warn(
            f"{engines} with other settings, so they get the same: {first_names(same)}",
            UserWarning,
            stacklevel=users_level(),
        )
    if kept:
        _warn_of_unquantized(f"{engines} that are not quantized, so they are not, either", kept)


def warn_of_uncounted(
    bits_per_weight: float, layers: Sequence[PlannedLayer], left: Sequence[UnquantizedTensor]
) -> None:
    """Say that most of the weights are none of a budget's, as they stay floats."""
    counted = sum(layer.weights for layer in layers if layer.settings is not None)
    kept = [each for each in left if each.kept and not each.is_quantized_already]
    others = sum(product(each.shape) for each in kept)
    if others <= counted:
        return
    bits = bits_per_weight * counted + 8 * sum(each.kept_bytes for each in kept)
    largest = sorted(kept, key=lambda each: -each.kept_bytes)
    warnings.warn(
        f"bits_per_weight={bits_per_weight:g} is a budget of the {counted:,} weights that are "
        f"quantized. The other {others:,} stay floats, so that the whole model takes up to "
        f"{bits / (counted + others):.2f} bits a weight: "
        f"{first_names([each.name for each in largest])}",
        UserWarning,
        stacklevel=users_level(),
    )


def warn_of_decoded(decoded: Mapping[str, int]) -> None:
    if decoded:
        listed_counts = ", ".join(f"{count} of {coding}" for coding, count in decoded.items())
        warnings.warn(
            f"Quantized already, and decoded first: {listed_counts}. Errors are those against the "
            "decoded weights; quantize float weights where you have them",
            UserWarning,
            stacklevel=users_level(),
        )
