"""Whether a language model has the head that its config.json says it has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp.known import ties_by_nature
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import Tensor
from pyarrowquant.recipes.presets import EMBEDDINGS

# Classes of transformers that have a head; others, such as LlamaModel and encoders, have none.
_WITH_HEAD = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_HEAD = re.compile(
    r"(^|\.)(\w*heads?|embed_out|lm_loss|output_layer|output_projection|pred_layer|proj_out)\."
)
_TIED = "tie_word_embeddings"
_FALSE = (False, 0, "false", "False")


def check_head(model: Model) -> None:
    """Refuse a model folder without the head that is not its embeddings.

    Engines would not load it, or compute with numbers that come from nowhere.

    Parameters
    ----------
    model : Model
        With its own names.

    Raises
    ------
    ValueError
        The head is missing.
    """
    config = model.config or {}
    model_class = _class_of(config)
    if not model_class.endswith(_WITH_HEAD) or _may_be_tied(config, model_class):
        return
    matrices = [tensor for tensor in model.all_tensors if len(tensor.shape) == 2]
    embeddings = [tensor for tensor in matrices if _is_embedding(tensor)]
    if not embeddings or _is_base(embeddings) or any(_heads(matrices, embeddings)):
        return
    told = f"{_TIED} {json.dumps(_said(config)[0])}"
    raise ValueError(
        f"'{model.location}' has no output head, such as 'lm_head.weight', which is part of the "
        f"model that its {CONFIG} says, as it has {told} and the class {quoted(model_class)}. "
        f"Download the folder anew, or take the {CONFIG} that came with the weights"
    )


def _class_of(config: dict[str, Any]) -> str:
    classes = config.get("architectures")
    first = classes[0] if isinstance(classes, list) and classes else classes
    return first if isinstance(first, str) else ""


def _said(config: dict[str, Any]) -> list[Any]:
    """All that is said of whether the embeddings are the head."""
    parts = (config, config.get("text_config"))
    return [part[_TIED] for part in parts if isinstance(part, dict) and _TIED in part]


def _may_be_tied(config: dict[str, Any], model_class: str) -> bool:
    """Whether the embeddings may be the head: unless all that is said is that they are not.

    Null is false to transformers, but for classes that tie them where nothing is said.
    """
    said = _said(config)
    known = [value for value in said if value is not None]
    if not said:
        return True
    if not known:
        return ties_by_nature(model_class)
    return any(value not in _FALSE for value in known)


def _is_embedding(tensor: Tensor) -> bool:
    return _HEAD.search(tensor.name) is None and any(
        rule.matches(tensor.name, tensor.shape) for rule in EMBEDDINGS
    )


def _is_base(embeddings: Sequence[Tensor]) -> bool:
    """Whether names lack the part that the class with a head puts before those of its base.

    So are files of models that embed texts, whatever class config.json says.
    """
    largest = max(embeddings, key=lambda tensor: tensor.shape[0])
    return largest.name.count(".") <= 1 or largest.name.startswith("embeddings.")


def _heads(matrices: Sequence[Tensor], embeddings: Sequence[Tensor]) -> Iterator[Tensor]:
    """Give what may be a head: by its name, or for it has a row for each token."""
    tokens = max(tensor.shape[0] for tensor in embeddings)
    names = {tensor.name for tensor in embeddings}
    for tensor in matrices:
        if _HEAD.search(tensor.name) or (tensor.shape[0] == tokens and tensor.name not in names):
            yield tensor
