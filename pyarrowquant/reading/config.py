"""The config.json of Hugging Face models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pyarrowquant.reading.location import Location
from pyarrowquant.reading.strict_json import check_nesting

CONFIG = "config.json"
# What says how weights are coded, by transformers (two names) and by MLX.
QUANTIZATION = ("quantization_config", "compression_config", "quantization")


def read_config(path: Location) -> dict[str, Any]:
    """Read a model's config.json; what is not a JSON object is an error."""
    with path.open() as file:
        data = file.buffer(0, file.size).to_pybytes()
    try:
        # Not as strict as for weights: real ones have Infinity.
        check_nesting(data)
        config = json.loads(data.decode())
    except ValueError as error:
        raise ValueError(f"'{path}' is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"'{path}' must be a JSON object, it is {type(config).__name__}")
    return config


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json of the same model with float weights."""
    left = {key: value for key, value in config.items() if key not in QUANTIZATION}
    text = left.get("text_config")
    return (
        left if not isinstance(text, dict) else {**left, "text_config": without_quantization(text)}
    )
