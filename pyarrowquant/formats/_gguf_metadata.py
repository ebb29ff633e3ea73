"""Keys and values that a caller gives for a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyarrowquant.errors import ArgumentTypeError

_OWN_KEYS = {
    "general.architecture": "give it as architecture",
    "general.alignment": "it is always 32",
}


def metadata_entries(gguf: Any, metadata: object) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """Keys and values with their GGUF types."""
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, Mapping):
        raise ArgumentTypeError(
            f"metadata must be a mapping, got {type(metadata).__name__}: {metadata!r}"
        )
    types = gguf.GGUFValueType
    # the types of the format are told by what gguf would not find out itself
    values = {
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        **metadata,
    }
    entries: list[tuple[str, Any, tuple[Any, ...]]] = []
    for key, value in values.items():
        if not isinstance(key, str):
            raise ArgumentTypeError(
                f"A key of metadata must be a str, got {type(key).__name__}: {key!r}"
            )
        if key in _OWN_KEYS:
            raise ValueError(f"metadata has the key '{key}': {_OWN_KEYS[key]}")
        if isinstance(value, (list, tuple)):
            element = _list_type(key, value)
            entries.append((key, list(value), (types.ARRAY, types[element])))
        else:
            entries.append((key, value, (types[_value_type(key, value)],)))
    return entries


def _value_type(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "BOOL"
    if isinstance(value, float):
        return "FLOAT32"
    if isinstance(value, str):
        return "STRING"
    if isinstance(value, int):
        bounds = (("UINT32", 0, 32), ("INT32", 31, 31), ("UINT64", 0, 64), ("INT64", 63, 63))
        for name, below, above in bounds:
            if (-(2**below) if below else 0) <= value < 2**above:
                return name
        raise ValueError(f"metadata '{key}': {value} is beyond 64 bits")
    raise ArgumentTypeError(
        f"metadata '{key}' must be a bool, int, float, str or a list of one of these, "
        f"got {type(value).__name__}: {value!r}"
    )


def _list_type(key: str, values: list[Any] | tuple[Any, ...]) -> str:
    if not values:
        raise ValueError(f"metadata '{key}' is an empty list")
    if len({type(value) for value in values}) > 1:
        raise ArgumentTypeError(f"metadata '{key}' is a list of more than one type")
    names = {_value_type(key, value) for value in values}
    if type(values[0]) is not int:
        return names.pop()
    if "UINT64" in names and max(values) >= 2**63:
        raise ValueError(f"metadata '{key}': a list of ints holds no more than 63 bits")
    small = all(-(2**31) <= value < 2**31 for value in values)
    return "INT32" if small else "INT64"
