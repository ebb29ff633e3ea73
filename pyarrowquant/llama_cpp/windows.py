"""Layers that attend to a window of the last tokens, in transformers and in llama.cpp."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping

from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.metadata import Metadata


def _all(said: Hyperparameters) -> Collection[int]:
    return range(said.layers)


def _late(said: Hyperparameters) -> Collection[int]:
    return range(said.whole("max_window_layers", least=0), said.layers)


def _early_and_even(said: Hyperparameters) -> Collection[int]:
    return range(0, min(said.whole("max_window_layers", least=0), said.layers), 2)


def _even(said: Hyperparameters) -> Collection[int]:
    return range(0, said.layers, 2)


def _periodic(said: Hyperparameters) -> Collection[int]:
    return _but_each(said.whole("sliding_window_pattern"), said.layers)


def _without_positions(said: Hyperparameters) -> Collection[int]:
    return set(range(said.layers)) - set(_layers_with_positions(said))


# Which layers have a window in transformers, by what classes have in common.
_RULES: Mapping[str, Callable[[Hyperparameters], Collection[int]]] = {
    "Mistral": _all,
    "Mixtral": _all,
    "Phi3": _all,
    "Qwen3Moe": _all,
    "Qwen2": _late,
    "Qwen3": _late,
    "Qwen2Moe": _early_and_even,
    "SmolLM3": _without_positions,
    "Gemma2": _even,
    "GptOss": _even,
    "Gemma3": _periodic,
}
_SWITCHED = ("Qwen2", "Qwen3", "Qwen2Moe", "Qwen3Moe", "SmolLM3")  # by use_sliding_window
_KINDS = ("full_attention", "sliding_attention")
_WITHOUT_LAYER_TYPES = ("Mistral", "Mixtral", "Phi3", "Qwen3Moe")
# llama.cpp has windows only here, but for each last layer of so many.
_PERIODS = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2}
_MAY_LACK_WINDOWS = ("gemma3",)
_PERIOD_OF_POSITIONS = 4


def describe_windows(said: Hyperparameters, family: str, metadata: Metadata) -> None:
    """Add the size of the window, or warn where llama.cpp attends to all tokens."""
    if family not in _RULES or (family in _SWITCHED and not said.get("use_sliding_window")):
        return
    architecture = metadata.architecture
    layers = _sliding_layers(said, family)
    if not layers and architecture in _MAY_LACK_WINDOWS:
        return
    if (period := _PERIODS.get(architecture)) is not None:
        key = "layer_types" if said.get("layer_types") is not None else "sliding_window_pattern"
        what = f"{architecture} attends to all tokens"
        _check_period(said, key, layers, period, what)
        metadata.add.add_sliding_window(said.whole("sliding_window"))
        return
    window = said.whole_or_none("sliding_window", least=0)
    if window and layers and window < said.whole("max_position_embeddings"):
        warnings.warn(
            f"'{said.path}': {len(layers)} of {said.layers} layers attend to a sliding_window of "
            f"{window} tokens, and llama.cpp's {architecture} attends to all, so that it computes "
            "something else for longer texts",
            UserWarning,
            stacklevel=users_level(),
        )


def check_positions(said: Hyperparameters) -> None:
    """Raise where other layers of SmolLM3 have rotary embeddings than in llama.cpp."""
    key = "no_rope_layers" if said.get("no_rope_layers") is not None else "no_rope_layer_interval"
    what = "smollm3 has no rotary embeddings"
    _check_period(said, key, _layers_with_positions(said), _PERIOD_OF_POSITIONS, what)


def _layers_with_positions(said: Hyperparameters) -> Collection[int]:
    listed = said.list_or_none("no_rope_layers")
    if listed is None:
        return _but_each(said.whole("no_rope_layer_interval"), said.layers)
    return [layer for layer in range(said.layers) if listed[layer]]


def _sliding_layers(said: Hyperparameters, family: str) -> Collection[int]:
    kinds = None if family in _WITHOUT_LAYER_TYPES else said.list_or_none("layer_types")
    if kinds is None:
        return _RULES[family](said)
    if not all(kind in _KINDS for kind in kinds):
        raise said.unsupported("layer_types", f"llama.cpp knows {' and '.join(_KINDS)} alone")
    return [layer for layer in range(said.layers) if kinds[layer] == "sliding_attention"]


def _but_each(period: int, layers: int) -> Collection[int]:
    return [layer for layer in range(layers) if (layer + 1) % period != 0]


def _check_period(
    said: Hyperparameters, key: str, layers: Collection[int], period: int, what: str
) -> None:
    """Raise where layers are others than llama.cpp's, of which one in a period differs."""
    wrong = sorted(set(layers) ^ set(_but_each(period, said.layers)))
    if wrong:
        raise said.unsupported(
            key, f"llama.cpp's {what} in one layer of {period}, so that layer {wrong[0]} differs"
        )
