"""What becomes of the tensors that are not quantized, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyarrowquant.formats._format import Format
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import Tensor, UndecodableTensor
from pyarrowquant.recipes.planned import PlannedLayer
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule, rule_label


@dataclass(frozen=True)
class UnquantizedTensor:
    """A tensor of the source that is not quantized.

    Attributes
    ----------
    name : str
    shape : tuple of int
    dtype : str
        As in safetensors; for codes what they are, such as "Q8_0".
    bytes : int
        What it takes in the source.
    kept : bool
        Whether it is in the output: as it is in the source, or decoded where that is codes that
        the format has no place for.
    reason : str
        Why it is not quantized, in words that fit several tensors.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    kept: bool
    reason: str


def unquantized(
    model: Model, target: Format, layers: Sequence[PlannedLayer], recipe: Recipe | None
) -> tuple[UnquantizedTensor, ...]:
    """List the tensors of a model that `layers` leave out; none where it does not say its own."""
    quantized = {layer.name for layer in layers if layer.settings is not None}
    return tuple(
        UnquantizedTensor(
            tensor.name,
            tensor.shape,
            tensor.stored_dtype,
            tensor.stored_bytes,
            target.keeps(tensor, model),
            _reason(tensor.name, tensor.shape, recipe)
            if model.can_quantize(tensor)
            else _dtype_reason(tensor),
        )
        for tensor in model.tensors or ()
        if tensor.name not in quantized
    )


def _dtype_reason(tensor: Tensor) -> str:
    reason = f"of dtype {tensor.dtype}"
    return f"{reason}: {tensor.problem}" if isinstance(tensor, UndecodableTensor) else reason


def _reason(name: str, shape: Sequence[int], recipe: Recipe | None) -> str:
    rule = Rule() if recipe is None else recipe.rule_of(name, shape)
    if rule.reason is not None:
        return rule.reason
    if recipe is not None and rule == recipe.default:
        return "no rule of the recipe is for them"
    said = rule_label(rule.said).removeprefix("Recipe rule").strip()
    return f"the recipe leaves them out {said}".rstrip()
