"""Whether config.json says sizes that a model can have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.config import CONFIG, MOST_LAYERS, NUMBERS_OF_LAYERS
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.tensors import Tensor

# By the keys of most models; others have none of them.
_COLUMNS = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "num_key_value_heads", "n_head", "n_heads")
_OTHERS = ("head_dim", "intermediate_size", "vocab_size")  # which models may do without
_LONGEST = 40  # of what is shown of a value
_LARGEST = 2**31 - 1
# The least and the most of each.
_BOUNDS = {
    **dict.fromkeys(NUMBERS_OF_LAYERS, (0, MOST_LAYERS)),
    **dict.fromkeys((*_COLUMNS, *_HEADS), (1, _LARGEST)),
    **dict.fromkeys(_OTHERS, (0, _LARGEST)),
}

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_WAY_OUT = f"Take the {CONFIG} that came with the weights"


def check_sizes(path: Location, config: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """Raise where config.json says a size that no model has, or columns that no tensor has.

    Parameters
    ----------
    path : Location
        Of config.json.
    config : mapping
    tensors : sequence of Tensor
        Of the model.

    Raises
    ------
    ValueError
        It does.
    """
    for name, part in _parts(config):
        for key, (least, most) in _BOUNDS.items():
            value = part.get(key)
            if isinstance(value, list | dict | None):  # as some models say it for each layer
                continue
            is_whole = type(value) is int or (type(value) is float and value.is_integer())
            if value == 0 and key in _HEADS and not any(map(_is_of_attention, tensors)):
                continue
            if not is_whole or not least <= value <= most:
                raise ValueError(
                    f"'{path}' says {name}{key} {_shown(value)}, which must be a whole number of "
                    f"{least} to {most}. {_WAY_OUT}"
                )
    *_, (name, text) = _parts(config)
    said = [key for key in _COLUMNS if type(text.get(key)) is int]
    if not said or not tensors or any(text[said[0]] in tensor.shape for tensor in tensors):
        return
    largest = max(tensors, key=lambda tensor: tensor.end - tensor.begin)
    raise ValueError(
        f"'{path}' says {name}{said[0]} {text[said[0]]}, and no tensor has so many rows or "
        f"columns: {quoted(largest.name)} has shape {list(largest.shape)}. {_WAY_OUT}"
    )


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give what is said of all of a model, and of its text model."""
    yield "", config
    text = config.get("text_config")
    if isinstance(text, dict):
        yield "text_config.", text


def _is_of_attention(tensor: Tensor) -> bool:
    return len(tensor.shape) > 1 and _ATTENTION.search(tensor.name) is not None


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
