"""The bytes of a GGUF file beside the blocks of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pyarrowquant.reading.gguf_header import SCALARS, STRING

ALIGNMENT = 32
_COUNTS = 4 + 4 + 8 + 8  # the magic, the version, and of tensors and keys
_TYPE, _LENGTH, _OFFSET = 4, 8, 8


def padded(size: int) -> int:
    """Return what bytes take that others follow."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def bytes_beside(
    keys: Iterable[int], tensors: Iterable[tuple[str, Sequence[int]]], kept: Iterable[int]
) -> int:
    """Return the bytes of a header, and of tensors that are kept.

    Parameters
    ----------
    keys : iterable of int
        The bytes of each key with its value.
    tensors : iterable of (str, sequence of int)
        Names and shapes of all tensors.
    kept : iterable of int
        Bytes of the data of those that are kept.
    """
    infos = (info_bytes(name, shape) for name, shape in tensors)
    return padded(_COUNTS + sum(keys) + sum(infos)) + sum(map(padded, kept))


def info_bytes(name: str, shape: Sequence[int]) -> int:
    """Return the bytes that a header has for a tensor."""
    return _text(name) + _TYPE + 8 * max(len(shape), 1) + _TYPE + _OFFSET


def key_bytes(key: str, value: Any, type_: int, element: int | None) -> int:
    """Return the bytes of a key.

    Parameters
    ----------
    key : str
    value : bool, int, float, str or a sequence of one of these
    type_ : int
        The number of its type.
    element : int or None
        That of the elements, if it is an array.
    """
    if element is None:
        return _text(key) + _TYPE + _value(value, type_)
    data = sum(_value(each, element) for each in value)
    return _text(key) + _TYPE + _TYPE + _LENGTH + data


def _value(value: Any, type_: int) -> int:
    return _text(value) if type_ == STRING else SCALARS[type_].itemsize


def text_key(key: str, value: str) -> int:
    return _text(key) + _TYPE + _text(value)


def number_key(key: str) -> int:
    """Return the bytes of a key of uint32."""
    return _text(key) + _TYPE + 4


def _text(text: str | bytes) -> int:
    return _LENGTH + len(text.encode() if isinstance(text, str) else text)
