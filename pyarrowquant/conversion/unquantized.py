"""What becomes of the tensors that are not quantized, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyarrowquant.errors import LayerError
from pyarrowquant.formats._format import Format
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import FLOATS, Tensor
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
    kept_bytes : int
        What it takes in the output; 0 where it is not kept.
    reason : str
        Why it is not quantized, in words that fit several tensors.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    kept: bool
    kept_bytes: int
    reason: str

    @property
    def is_quantized_already(self) -> bool:
        """Whether it is codes in the source, and still is in the output."""
        return self.kept and self.dtype not in _NO_CODES and not self.is_decoded

    @property
    def is_decoded(self) -> bool:
        """Whether it is codes in the source, and floats in the output."""
        return self.kept and self.dtype not in _NO_CODES and self.kept_bytes > self.bytes


# Of types of safetensors; codes are among the others.
_NO_CODES = FLOATS | {"F64", "C64", "BOOL", "I16", "U16", "I64", "U64"}
# Of layers that failed, by the kind of their error.
_FAILED = {
    "non_finite": "with NaN or Inf",
    "shape_mismatch": "with more or fewer weights than their shape has",
    "null": "with nulls",
    "corrupt": "which are corrupt",
    "scale_range": "whose scales are beyond the scale_dtype",
    "importance": "whose importance is wrong",
}
_UNUSABLE = frozenset({"shape_mismatch", "null", "corrupt"})


def unquantized(
    model: Model,
    target: Format,
    layers: Sequence[PlannedLayer],
    recipe: Recipe | None,
    failed: Sequence[LayerError] = (),
) -> tuple[UnquantizedTensor, ...]:
    """List the tensors of a model that `layers` leave out, and those that failed."""
    quantized = {layer.name for layer in layers if layer.settings is not None}
    kinds = {error.layer_name: error.kind for error in failed}
    unusable = unusable_layers(failed)

    def reason(tensor: Tensor) -> str | None:
        if obstacle := model.obstacle(tensor):
            return obstacle
        if tensor.name in kinds:
            return _FAILED.get(kinds[tensor.name], "which failed")
        if tensor.name in quantized:
            return None
        if lacking := target.lacks(tensor):
            return f"the format has no {lacking}"
        return _reason(tensor.name, tensor.shape, recipe)

    return tuple(
        UnquantizedTensor(
            tensor.name,
            tensor.shape,
            tensor.stored_dtype,
            tensor.stored_bytes,
            is_kept,
            target.kept_bytes(tensor, model) if is_kept else 0,
            why,
        )
        for tensor in model.all_tensors
        if (why := reason(tensor)) is not None
        for is_kept in [tensor.name not in unusable and target.keeps(tensor, model)]
    )


def unusable_layers(failed: Sequence[LayerError]) -> set[str]:
    """Return the names of layers that failed for what they are, and can be in no file."""
    return {
        error.layer_name
        for error in failed
        if error.layer_name is not None and error.kind in _UNUSABLE
    }


def _reason(name: str, shape: Sequence[int], recipe: Recipe | None) -> str:
    rule = Rule() if recipe is None else recipe.decisions.outcome(name, shape)[0]
    if rule.reason is not None:
        return rule.reason
    if recipe is not None and rule == recipe.default:
        return "no rule of the recipe is for them"
    said = rule_label(rule.said).removeprefix("Recipe rule").strip()
    return f"the recipe leaves them out {said}".rstrip()
