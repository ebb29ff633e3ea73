"""Keys of GGUF headers as bytes: what a header has for each, its value included."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from pyarrowquant.reading.gguf_header import ARRAY, CODES, STRING, UINT32


def encoded_key(key: str, value: Any, type_: int) -> bytes:
    """Return a key with a value that is no array.

    Parameters
    ----------
    key : str
    value : bool, int, float, str or bytes
    type_ : int
        The number of its type.
    """
    return text(key) + struct.pack("<I", type_) + _values([value], type_)


def encoded_array(key: str, values: Sequence[Any], type_: int) -> bytes:
    """Return a key with an array.

    Parameters
    ----------
    key : str
    values : sequence of bool, int, float, str or bytes
    type_ : int
        The number of their type.
    """
    start = struct.pack("<IIQ", ARRAY, type_, len(values))
    return text(key) + start + _values(values, type_)


def text_key(key: str, value: str) -> bytes:
    return encoded_key(key, value, STRING)


def number_key(key: str, value: int) -> bytes:
    """Return a key with a uint32."""
    return encoded_key(key, value, UINT32)


def _values(values: Sequence[Any], type_: int) -> bytes:
    if type_ == STRING:
        return b"".join(map(text, values))
    return struct.pack(f"<{len(values)}{CODES[type_]}", *values)


def text(value: str | bytes) -> bytes:
    """Return a text with its length before it."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data
