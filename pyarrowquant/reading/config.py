"""The config.json of Hugging Face models."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import users_level
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.strict_json import parse_any

CONFIG = "config.json"
# What says how weights are coded, by transformers (two names) and by MLX.
_QUANTIZATION = ("quantization_config", "compression_config", "quantization")

NUMBERS_OF_LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
MOST_LAYERS = 9999


def layers_of(config: Mapping[str, Any]) -> int | None:
    """Return how many layers the text model has by its config.json."""
    said = layers_said(config)
    return None if said is None else said[1]


def layers_said(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the key that says how many layers the text model has, and their number."""
    text = config.get("text_config")
    for before, part in (("text_config.", text), ("", config)):
        for key in NUMBERS_OF_LAYERS:
            number = part.get(key) if isinstance(part, dict) else None
            if type(number) is int and 0 <= number <= MOST_LAYERS:
                return before + key, number
    return None


def read_config(path: Location) -> dict[str, Any]:
    """Read a model's config.json; what is not a JSON object is an error."""
    with path.open() as file:
        data = file.buffer(0, file.size).to_pybytes()
    try:
        config = parse_any(data)
    except ValueError as error:
        raise ValueError(f"'{path}' is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"'{path}' must be a JSON object, it is {type(config).__name__}")
    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise ValueError(
            f"'{path}' has model_type {json.dumps(kind)}, which must be a text, such as \"llama\". "
            f"Take the {CONFIG} that came with the weights"
        )
    return config


def quantization_in(config: Mapping[str, Any]) -> str | None:
    """Return the key by which a config.json says that weights are quantized, with the method."""
    for key, found in quantizations_in(config):
        method = found.get("quant_method") if isinstance(found, dict) else None
        return key + (f" ({quoted(method)})" if method else "")
    return None


def quantizations_in(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give all that a config.json, and its parts, say of how weights are quantized, by key."""
    parts = {f"{name}.": part for name, part in config.items() if isinstance(part, dict)}
    for prefix, part in {"": config, **parts}.items():
        for key in _QUANTIZATION:
            if (found := part.get(key)) is not None:
                yield f"{prefix}{key}", found


def is_of_mlx(quantization: Any) -> bool:
    """Whether this is what MLX says of how it has quantized weights, which names no method."""
    return (
        isinstance(quantization, dict)
        and {"bits", "group_size"} <= quantization.keys()
        and quantization.get("quant_method") is None
    )


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json of the same model with float weights."""
    return {
        name: _without(part) if isinstance(part, dict) else part
        for name, part in _without(config).items()
    }


def _without(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in _QUANTIZATION}


def warn_of_constants(config: dict[str, Any], path: str) -> None:
    """Warn of numbers that JSON lacks, which are written as they were read."""
    for key, number in _constants(config, ""):
        warnings.warn(
            f"'{path}' has {json.dumps(number)} at {key}, which is no number of JSON. It is "
            "written as it is: Python reads it, other readers may not",
            UserWarning,
            stacklevel=users_level(),
        )


def _constants(value: object, key: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _constants(each, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for position, each in enumerate(value):
            yield from _constants(each, f"{key}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, value
