"""Importance by llama.cpp's names, for the layers of a Hugging Face folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pyarrowquant.llama_cpp.architecture import HEAD, Part
from pyarrowquant.llama_cpp.folder_names import NamesInLlamaCpp
from pyarrowquant.reading.importance import Importance
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import CodedTensor
from pyarrowquant.recipes.planned import PlannedLayer

# How names of llama.cpp begin, of models with an encoder and a decoder, too.
_OF_LAYER = re.compile(r"(?:enc\.|dec\.)?blk\.\d+\.")
# A matrix for each head, of what DeepSeek has as one with the same columns.
_OF_HEADS = re.compile(r"blk\.\d+\.attn_v_b\.weight")


def under_names_of_layers(
    importance: Importance, layers: Sequence[PlannedLayer], model: Model
) -> Importance:
    """Return importance that llama.cpp has measured under the names of a model that is not its own.

    Any other stays as it is.
    """
    names = [str(layer.name) for layer in layers]
    if any(map(_OF_LAYER.match, names)) or not any(map(_OF_LAYER.match, importance.values)):
        return importance
    found = dict(importance.values)
    has_head = any(name.endswith(HEAD) for name in names)
    theirs = NamesInLlamaCpp(model.config or {}, has_head)
    tensors = {tensor.name: tensor for tensor in model.all_tensors}
    for layer in layers:
        name = str(layer.name)
        tensor = tensors.get(name)
        names = [name, *(() if tensor is None else model.also_called(tensor))]
        parts = [part for each in names for part in theirs.parts(each)]
        part = next((part for part in parts if part.name in importance.values), None)
        if part is None or name in importance.values:
            continue
        if not isinstance(tensor, CodedTensor) and _may_be_turned(layer, part, importance):
            continue
        expert = next((each.expert for each in parts if each.expert is not None), None)
        values = importance.values[part.name]
        found[name] = _values(layer, replace(part, expert=expert), values)
    return replace(importance, values=found)


def _may_be_turned(layer: PlannedLayer, part: Part, importance: Importance) -> bool:
    """Whether rows of a stack may be its columns, as in some files of floats."""
    rows = layer.shape[0] * layer.shape[1] if len(layer.shape) == 3 else None
    return bool(importance.values[part.name].size == rows)


def _values(layer: PlannedLayer, part: Part, values: Any) -> Any:
    """Return what there is of a layer that is, or is a part of, one of llama.cpp's."""
    columns = layer.columns
    if len(layer.shape) > 2 or values.size % columns:
        return values  # of which it is told where they do not fit
    matrices = values.reshape(-1, columns)
    if part.expert is not None and part.expert < len(matrices):
        return matrices[part.expert]
    if _OF_HEADS.fullmatch(part.name):
        return matrices.mean(axis=0, dtype=np.float64).astype(np.float32)
    return values
