"""Experts as mlx-lm loads them: one stack for all of a block."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyarrowquant._core.quoting import first_few, first_names, quoted
from pyarrowquant.formats._mlx_config import MlxSettings
from pyarrowquant.formats._mlx_layers import WEIGHT
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.rule import Rule

_EXPERT = re.compile(
    r"(?P<block>.+)\.(?P<stack>experts|switch_mlp|switch_glu)\.(?P<number>\d+)\."
    r"(?P<matrix>w[123]|(?:gate|up|down)_proj)\.weight"
)
_MATRICES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
# Where stacks are in models whose code in mlx-lm does not make them of packed layers itself, by
# the model_type of config.json. That of others does, or looks for single experts first.
_SWITCH, _EXPERTS = "switch_mlp", "experts"
_PLACES = {
    "ernie4_5_moe": _SWITCH,
    "gpt_oss": _EXPERTS,
    "lfm2_moe": _SWITCH,
    "llama4": _EXPERTS,
    "mellum": _SWITCH,
    "minimax": _SWITCH,
    "minimax_m2": _SWITCH,
    "qwen2_moe": _SWITCH,
    "qwen3_5_moe": _SWITCH,
    "qwen3_moe": _SWITCH,
    "qwen3_vl_moe": _SWITCH,
}
# Models of which it joins float experts only, and does more where it finds single ones.
_JOINS_FLOATS = frozenset({"bailing_moe_v3", "Klear", "kimi_linear", "nemotron_h", "qwen3_next"})
FLOAT_EXPERTS = Rule(
    match="*.experts.*",
    skip=True,
    reason="experts, which mlx-lm loads as floats only",
)
_JOINED_IN = ("*.switch_mlp.*", "*.switch_glu.*")
_JOINED_EXPERTS = tuple(f"*.{_EXPERTS}.{part}_proj.weight" for part in ("gate", "up", "down"))
JOINED = Rule(
    match=(*_JOINED_IN, *_JOINED_EXPERTS),
    ndim=3,
    skip=True,
    reason=(
        "experts that MLX has joined, which stay decoded in the model's dtype: give the model "
        "before MLX"
    ),
)
_SURELY_JOINED = Rule(match=_JOINED_IN, ndim=3)
# Where gates and what they multiply alternate in the stacks of transformers.
ALTERNATING = frozenset({"gpt_oss"})


@dataclass(frozen=True)
class Place:
    """Where the matrix of an expert is.

    Attributes
    ----------
    module : str
        The stack.
    number : int
        Of the expert.
    """

    module: str
    number: int


def has_stacks(config: Mapping[str, Any]) -> bool:
    """Whether mlx-lm wants stacks of a model with this config.json."""
    return config.get("model_type") in _PLACES


def joins_floats(config: Mapping[str, Any]) -> bool:
    """Whether mlx-lm loads experts of a model with this config.json as floats only."""
    return config.get("model_type") in _JOINS_FLOATS


def joined_by_mlx(model: Model) -> list[str]:
    """List the stacks of experts that have the names that MLX gives them."""
    is_beside = _PLACES.get(str((model.config or {}).get("model_type"))) == _EXPERTS
    rule = JOINED if is_beside else _SURELY_JOINED
    return [each.name for each in model.tensors or () if rule.matches(each.name, each.shape)]


def refuse_joined(model: Model, engine: str) -> None:
    """Refuse a model of which an engine would not find the experts, since MLX has joined them."""
    _refuse(model, joined_by_mlx(model), engine)


def refuse_switched(model: Model, engine: str) -> None:
    """Refuse a model as `refuse_joined` does, but for stacks of names that others have, too."""
    found = joined_by_mlx(model)
    _refuse(model, [name for name in found if _SURELY_JOINED.matches(name, (1, 1, 1))], engine)


def _refuse(model: Model, names: Sequence[str], engine: str) -> None:
    if names:
        raise ValueError(
            f"'{model.location}' has experts that MLX has joined, under names that {engine} does "
            f"not know, so it would not load them: {first_names(names)}. Give the model before MLX"
        )


def place_of(name: str, config: Mapping[str, Any]) -> Place | None:
    """Return the place of a layer in a stack; None where it is in none."""
    found = _EXPERT.fullmatch(name)
    if found is None:
        return None
    place = _PLACES.get(str(config.get("model_type")))
    if found["stack"] != _EXPERTS:  # of a stack that MLX has made, which stays where it was
        place = found["stack"]
    if place is None:
        return None
    matrix = _MATRICES.get(found["matrix"], found["matrix"])
    return Place(f"{found['block']}.{place}.{matrix}", int(found["number"]))


def settings_of_modules(
    layers: Mapping[str, MlxSettings], others: Iterable[str], config: Mapping[str, Any]
) -> dict[str, MlxSettings]:
    """Return the settings of modules, of which one has all experts of a block.

    Parameters
    ----------
    layers : mapping
        Settings of layers by their names.
    others : iterable of str
        Names of tensors that are not quantized.
    config : mapping
        The model's config.json.

    Raises
    ------
    ValueError
        The experts of a stack do not all have the same settings.
    """
    settings: dict[str, MlxSettings] = {}
    stacks: dict[str, MlxSettings] = {}
    for name, each in layers.items():
        place = place_of(name, config)
        settings[name.removesuffix(WEIGHT) if place is None else place.module] = each
        stack = _stack_of(name, config)
        if stack is not None and stacks.setdefault(stack, each) != each:
            raise _differ(stack, f"{quoted(name)} is of {each}, others are of {stacks[stack]}")
    kept: dict[str, list[str]] = {}
    for name in others:
        stack = _stack_of(name, config)
        if stack in stacks:
            kept.setdefault(stack, []).append(quoted(name))
    for stack, names in kept.items():
        raise _differ(stack, f"these are not quantized: {first_few(names)}")
    return settings


def stack_of(name: str) -> str | None:
    """Return a name of the stack that mlx-lm makes of a layer and others; None for no expert."""
    found = _EXPERT.fullmatch(name)
    if found is None:
        return None
    return f"{found['block']}.{found['stack']}.{_MATRICES.get(found['matrix'], found['matrix'])}"


def _stack_of(name: str, config: Mapping[str, Any]) -> str | None:
    """Return what mlx-lm joins a layer to, or finds it in; None for what is no expert."""
    found = _EXPERT.fullmatch(name) if "model_type" in config else None
    if found is None:
        return None
    place = place_of(name, config)
    return f"{found['block']}.experts.*.{found['matrix']}" if place is None else place.module


def missing_experts(stack: str, numbers: Iterable[int]) -> ValueError:
    """Return the error of a stack that has not these experts alone."""
    found = sorted(numbers)
    missing = sorted(set(range(found[-1] + 1)) - set(found))
    return ValueError(
        f"{quoted(stack)} would lack the experts {first_few([str(number) for number in missing])}. "
        "Give all of them, quantized or not"
    )


def _differ(module: str, found: str) -> ValueError:
    return ValueError(
        f"mlx-lm loads all experts of {quoted(module)} as one stack, of the same settings; "
        f"{found}. Quantize them alike, or leave out all of them by a rule with skip"
    )
