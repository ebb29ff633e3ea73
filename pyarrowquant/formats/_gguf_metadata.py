"""Keys and values that a caller gives for a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyarrowquant._core.arguments import text, wrong_type
from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import ArgumentTypeError

_OWN_KEYS = {
    "general.architecture": "give it as architecture",
    "general.alignment": "it is always 32",
}


def checked_architecture(said: object) -> str:
    """Return the name of an architecture, of which llama.cpp makes names of keys."""
    name = text("architecture", said)
    if not name or not name.isprintable():
        raise ValueError(f"architecture {quoted(name)} is no name. Give one as 'llama'")
    return name


def metadata_entries(gguf: Any, metadata: object) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """Keys and values with their GGUF types."""
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, Mapping):
        raise wrong_type("metadata must be a mapping", metadata)
    types = gguf.GGUFValueType
    # the types of the format are told by what gguf would not find out itself
    values = {
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        **metadata,
    }
    entries: list[tuple[str, Any, tuple[Any, ...]]] = []
    for key, value in values.items():
        if not isinstance(key, str):
            raise wrong_type("A key of metadata must be a str", key)
        _check_text("A key of metadata", key)
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
        _check_text(f"metadata '{key}'", value)
        return "STRING"
    if isinstance(value, int):
        bounds = (("UINT32", 0, 32), ("INT32", 31, 31), ("UINT64", 0, 64), ("INT64", 63, 63))
        for name, below, above in bounds:
            if (-(2**below) if below else 0) <= value < 2**above:
                return name
        raise ValueError(f"metadata '{key}': {value} is beyond 64 bits")
    raise wrong_type(
        f"metadata '{key}' must be a bool, int, float, str or a list of one of these", value
    )


def _check_text(where: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} {quoted(text)} is no text that UTF-8 has, as GGUF files do: {error.reason}"
        ) from None


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
