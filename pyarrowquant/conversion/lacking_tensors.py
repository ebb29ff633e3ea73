"""Whether a folder has all tensors of its model, before anything is done with it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyarrowquant._core.quoting import first_names, quoted
from pyarrowquant.conversion.said_sizes import check_sizes
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.lacking import UnknownModelError, check_none_lacks
from pyarrowquant.reading.config import CONFIG, layers_said
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.tensors import Tensor

_IN_STACK = re.compile(
    r"(?P<stack>(?:.+?\.)?(?:layers?|h|blocks?))\.(?P<layer>\d{1,9})\.(?P<rest>.+)"
)
# Parts of models whose layers num_hidden_layers does not count.
_OTHER_PARTS = re.compile(
    r"vision|visual|image|audio|speech|tower|mtp|draft|resampler|perceiver|projector|adapter"
)
_ENCODER = "encoder"  # which is another part, too, where there are others
# What says that layers differ in what they have, or how many a part has.
_OF_UNEQUAL = (
    "block_configs",
    "block_sizes",
    "is_encoder_decoder",
    "decoder_layers",
    "num_decoder_layers",
)
_OF_MORE_TOKENS = re.compile(r"nextn|mtp")
_NORM = re.compile(r"(^|[._])(norm|ln)|norm([._]|$)", re.IGNORECASE)


def check_tensors(model: Model) -> None:
    """Refuse a folder that lacks tensors of the model that its config.json says.

    Where the architecture is not known, a layer that lacks what all others have is a warning, as
    some models are so. Layers beyond those that are said are one for all.

    Raises
    ------
    ValueError
        A tensor, or a layer, is missing, or a size is none.
    """
    if not isinstance(model, ShardedModel) or model.folder is None:
        return
    config = model.config or {}
    check_sizes(model.folder.within(CONFIG), config, model.tensors)
    stacks = _stacks(model.all_tensors)
    _warn_of_more(model, config, stacks)
    try:
        check_none_lacks(str(model.folder), str(model.folder.within(CONFIG)), config, model.tensors)
    except UnknownModelError:
        _check_stacks(model, config, stacks)


def _check_stacks(model: Model, config: Mapping[str, Any], stacks: Mapping[str, _Stack]) -> None:
    counted, said = _counted(stacks, config)
    for name, stack in stacks.items():
        key, count = said if said is not None and counted == name else ("", 0)
        if lacking := set(range(count)) - stack.layers.keys():
            raise ValueError(
                f"'{model.location}' has no tensors of {quoted(f'{name}.{min(lacking)}')}, and its "
                f"{CONFIG} says {key} {count}. Download the folder anew, or take the {CONFIG} that "
                "came with the weights"
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


def _counted(
    stacks: Mapping[str, _Stack], config: Mapping[str, Any]
) -> tuple[str | None, tuple[str, int] | None]:
    """Return the stack whose layers config.json counts, if one is sure to be, and what it says."""
    names = _of_text(stacks)
    if len(names) > 1:
        names = [name for name in names if _ENCODER not in name]
    if len(names) != 1 or any(config.get(key) for key in _OF_UNEQUAL):
        return None, None
    return names[0], layers_said(config)


def _of_text(stacks: Iterable[str]) -> list[str]:
    return [name for name in stacks if _OTHER_PARTS.search(name) is None]


def _warn_of_more(model: Model, config: Mapping[str, Any], stacks: Mapping[str, _Stack]) -> None:
    """Warn of layers beyond those that are said, but for such that predict more tokens."""
    counted, said = _counted(stacks, config)
    if counted is None or said is None or len(_of_text(stacks)) > 1:
        return
    text = config.get("text_config")
    values = {**config, **text} if isinstance(text, dict) else config
    more = sum(
        max(value, 0)
        for key, value in values.items()
        if _OF_MORE_TOKENS.search(key) and type(value) is int
    )
    key, count = said
    found = sorted(number for number in stacks[counted].layers if number >= count + more)
    if found:
        names = [f"{counted}.{number}" for number in found]
        warnings.warn(
            f"'{model.location}' has tensors of {first_names(names)}, and its {CONFIG} says "
            f"{key} {count}: engines leave the others out, or refuse the model. Take the {CONFIG} "
            "that came with the weights, if it is not meant so",
            UserWarning,
            stacklevel=users_level(),
        )


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
