"""Importance by llama.cpp's names, for the layers of a Hugging Face folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pyarrowquant.formats._conv1d import has_conv1d
from pyarrowquant.llama_cpp.architecture import Part
from pyarrowquant.llama_cpp.folder_names import NamesInLlamaCpp
from pyarrowquant.reading.importance import Importance
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import CodedTensor, Tensor
from pyarrowquant.recipes.planned import PlannedLayer

# How names of llama.cpp begin, of models with an encoder and a decoder, too.
_OF_LAYER = re.compile(r"(?:enc\.|dec\.)?blk\.\d+\.")
# A matrix for each head, of what DeepSeek has as one with the same columns, and what it is beside.
_OF_HEADS = re.compile(r"(blk\.\d+\.attn_)v_b\.weight")


def under_names_of_layers(
    importance: Importance, layers: Sequence[PlannedLayer], model: Model
) -> tuple[Importance, set[str]]:
    """Return importance that llama.cpp has measured under the names of a model that is not its own.

    Returns
    -------
    Importance
        Any other stays as it is.
    set of str
        Which names of llama.cpp the model's tensors have.
    """
    names = [str(layer.name) for layer in layers]
    if any(map(_OF_LAYER.match, names)) or not any(map(_OF_LAYER.match, importance.values)):
        return importance, set()
    tensors = {tensor.name: tensor for tensor in model.all_tensors}
    theirs = _Theirs(model, names)
    are_turned = has_conv1d(model.config or {})
    found = dict(importance.values)
    for layer in layers:
        name = str(layer.name)
        parts = theirs.parts(name)
        part = next((part for part in parts if part.name in importance.values), None)
        if part is None or name in importance.values:
            continue
        if are_turned and _OF_LAYER.match(part.name):
            continue
        if not _may_be_turned(layer, tensors.get(name), importance.values[part.name]):
            expert = next((each.expert for each in parts if each.expert is not None), None)
            experts = theirs.experts.get(part.name, 0)
            values = importance.values[part.name]
            found[name] = _values(layer, replace(part, expert=expert), experts, values)
    return replace(importance, values=found), theirs.known


class _Theirs:
    """What llama.cpp calls the tensors of a model.

    Attributes
    ----------
    known : set of str
        All such names.
    experts : dict of str to int
        How many matrices the model has of each stack.
    """

    def __init__(self, model: Model, layers: Sequence[str]) -> None:
        self._originals = {tensor.name: model.also_called(tensor) for tensor in model.all_tensors}
        names = [*self._originals, *layers]
        self._names = NamesInLlamaCpp(model.config or {}, names)
        self.known: set[str] = set()
        self.experts: dict[str, int] = {}
        for name in names:
            for part in self.parts(name):
                self.known |= {part.name, _OF_HEADS.sub(r"\1k_b.weight", part.name)}
                if part.expert is not None:
                    count = max(self.experts.get(part.name, 0), part.expert + 1)
                    self.experts[part.name] = count

    def parts(self, name: str) -> list[Part]:
        """Return what has the columns of a tensor, by its name and others."""
        names = (name, *self._originals.get(name, ()))
        return [part for each in names for part in self._names.parts(each)]


def _may_be_turned(layer: PlannedLayer, tensor: Tensor | None, values: Any) -> bool:
    """Whether rows of a stack may be its columns, as in some files of floats."""
    if len(layer.shape) != 3 or isinstance(tensor, CodedTensor):
        return False
    return bool(values.size == layer.shape[0] * layer.shape[1])


def _values(layer: PlannedLayer, part: Part, experts: int, values: Any) -> Any:
    """Return what there is of a layer that is, or is a part of, one of llama.cpp's.

    Where that has other columns, or more matrices, it is all, which is told of.
    """
    columns = layer.columns
    if len(layer.shape) > 2 or values.size % columns:
        return values
    matrices = values.reshape(-1, columns)
    if part.expert is not None:
        return matrices[part.expert] if len(matrices) == experts else values
    if _OF_HEADS.fullmatch(part.name):
        return matrices.mean(axis=0, dtype=np.float64).astype(np.float32)
    return values
