"""Whether a folder has all tensors of its model, before anything is done with it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyarrowquant._core.quoting import first_names, quoted
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.lacking import UnknownModelError, check_none_lacks
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.tensors import Tensor

_IN_STACK = re.compile(r"(?P<stack>(?:.+\.)?(?:layers|h|blocks))\.(?P<layer>\d{1,9})\.(?P<rest>.+)")
# Parts of models whose layers num_hidden_layers does not count.
_OTHER_PARTS = re.compile(
    r"vision|visual|image|audio|speech|encoder|tower|mtp|draft|resampler|perceiver|projector|adapter"
)
_NUMBERS_OF_LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
# What says that layers differ in what they have, or how many a part has.
_OF_UNEQUAL = ("block_configs", "is_encoder_decoder", "decoder_layers", "num_decoder_layers")
_NORM = re.compile(r"(^|[._])(norm|ln)|norm([._]|$)", re.IGNORECASE)


def check_tensors(model: Model) -> None:
    """Refuse a folder that lacks tensors of the model that its config.json says.

    Where the architecture is not known, a layer that lacks what all others have is a warning, as
    some models are so.

    Raises
    ------
    ValueError
        A tensor, or a layer, is missing.
    """
    if not isinstance(model, ShardedModel) or model.folder is None:
        return
    config = model.config or {}
    try:
        check_none_lacks(str(model.folder), str(model.folder.within(CONFIG)), config, model.tensors)
    except UnknownModelError:
        _check_stacks(model, config)


def _check_stacks(model: Model, config: Mapping[str, Any]) -> None:
    stacks = _stacks(model.all_tensors)
    counted = [name for name in stacks if _OTHER_PARTS.search(name) is None]
    said = None if any(config.get(key) for key in _OF_UNEQUAL) else _layers_of(config)
    for name, stack in stacks.items():
        count = said if counted == [name] else None
        if count is not None and (lacking := set(range(count)) - stack.layers.keys()):
            raise ValueError(
                f"'{model.location}' has no tensors of {quoted(f'{name}.{min(lacking)}')}, and its "
                f"{CONFIG} says that there are {count} layers. Download the folder anew, or take "
                f"the {CONFIG} that came with the weights"
            )
        _warn_of_gaps(model, name, stack)
        _warn_of_odd_one(model, name, stack)


@dataclass
class _Stack:
    """Layers by their numbers, each with the names of its tensors within it."""

    layers: dict[int, set[str]] = field(default_factory=dict)


def _stacks(tensors: Sequence[Tensor]) -> dict[str, _Stack]:
    found: dict[str, _Stack] = {}
    for tensor in tensors:
        if said := _IN_STACK.fullmatch(tensor.name):
            stack = found.setdefault(said["stack"], _Stack())
            stack.layers.setdefault(int(said["layer"]), set()).add(said["rest"])
    return found


def _layers_of(config: Mapping[str, Any]) -> int | None:
    """Return how many layers the text model has by its config.json."""
    text = config.get("text_config")
    for part in (text, config):
        for key in _NUMBERS_OF_LAYERS:
            number = part.get(key) if isinstance(part, dict) else None
            if type(number) is int and 0 < number < 10_000:
                return number
    return None


def _warn_of_gaps(model: Model, name: str, stack: _Stack) -> None:
    numbers = stack.layers.keys()
    gaps = [f"{name}.{number}" for number in range(max(numbers)) if number not in numbers]
    if gaps:
        _warn(model, f"has no tensors of {first_names(gaps)}, and has such of the next layer")


def _warn_of_odd_one(model: Model, name: str, stack: _Stack) -> None:
    """Warn where one layer alone has all tensors of others but for a few."""
    lacking = dict(_lacking(stack))
    if len(lacking) == 1:
        ((layer, names),) = lacking.items()
        missing = [f"{name}.{layer}.{each}" for each in sorted(names)]
        _warn(model, f"has no {first_names(missing)}, which its other layers have")


def _lacking(stack: _Stack) -> Iterator[tuple[int, set[str]]]:
    """Give the layers that no other one is like, with what they lack of the one most like them."""
    for layer, names in stack.layers.items():
        others = [found for number, found in stack.layers.items() if number != layer]
        if names in others:
            continue
        missing = min((found - names for found in others if names < found), key=len, default=set())
        is_by_nature = layer == 0 and all(map(_NORM.search, missing))  # as of ModernBERT
        if missing and not is_by_nature and sum(missing <= found for found in others) > 1:
            yield layer, missing


def _warn(model: Model, what: str) -> None:
    warnings.warn(
        f"'{model.location}' {what}. If the model is not so by nature, download it anew",
        UserWarning,
        stacklevel=users_level(),
    )
