"""The config.json of Hugging Face models."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import users_level
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.strict_json import check_nesting

CONFIG = "config.json"


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


def quantization_in(config: dict[str, Any]) -> str | None:
    """Return the key by which a config.json says that weights are quantized, with the method."""
    parts = {f"{name}.": part for name, part in config.items() if isinstance(part, dict)}
    for prefix, part in {"": config, **parts}.items():
        for key in ("quantization_config", "compression_config", "quantization"):
            if (found := part.get(key)) is not None:
                method = found.get("quant_method") if isinstance(found, dict) else None
                return f"{prefix}{key}" + (f" ({quoted(method)})" if method else "")
    return None


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
