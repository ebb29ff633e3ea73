"""Linear layers of transformers, of the folder of a model: the ones that it loads packed."""

from __future__ import annotations

from dataclasses import replace

from pyarrowquant._core.layout import Coded
from pyarrowquant.formats._conv1d import refuse_conv1d
from pyarrowquant.formats._mlx_stacks import refuse_joined
from pyarrowquant.formats._model_folder import ModelFolder
from pyarrowquant.formats._module_names import WEIGHT
from pyarrowquant.formats._rules import NO_MATRIX, NO_WEIGHT
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.recipes.presets import NOT_LINEAR
from pyarrowquant.recipes.rule import Rule


def _not_linear(rule: Rule) -> Rule:
    return replace(rule, reason="embeddings, norms and routers, which transformers does not pack")


NO_LINEAR_LAYERS = (NO_MATRIX, NO_WEIGHT, *map(_not_linear, NOT_LINEAR))


def model_dtype(source: ModelFolder) -> str:
    """Return the dtype of the model, or raise where transformers loads nothing of it packed."""
    config = source.location.within(CONFIG)
    source.model.refuse_quantized()
    refuse_conv1d(source.config, config, "transformers loads packed Linear layers only")
    refuse_joined(source.model, "transformers")
    return source.known_dtype()


def linear_problem(layer: Coded, source: ModelFolder | None) -> str | None:
    """Say why a layer is none of a model that transformers loads packed.

    Parameters
    ----------
    layer : Coded
    source : ModelFolder or None
        None for rows that are not whole layers of a model.
    """
    if not layer.name.endswith(WEIGHT) or layer.name == WEIGHT:
        return "its name does not end with '.weight'"
    if source is not None:
        if layer.name not in source.tensors:
            return f"the model '{source.location}' has no tensor of this name"
        if layer.shape != (shape := source.tensors[layer.name].shape):
            place = source.location
            return f"shape {list(layer.shape)}, in the model '{place}' it is {list(shape)}"
    if problem := layer.matrix_problem():
        return problem
    if any(rule.matches(layer.name, layer.shape) for rule in NOT_LINEAR):
        return (
            "by its name it is an embedding, a norm or a router, which transformers does not load "
            'packed: quantize with recipe="text", which leaves such layers out'
        )
    return None
