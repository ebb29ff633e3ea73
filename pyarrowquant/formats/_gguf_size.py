"""The bytes of a GGUF file beside the blocks of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyarrowquant.reading.gguf_header import Value

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
    infos = (
        _text(name) + _TYPE + 8 * max(len(shape), 1) + _TYPE + _OFFSET for name, shape in tensors
    )
    return padded(_COUNTS + sum(keys) + sum(infos)) + sum(map(padded, kept))


def copied_key(value: Value) -> int:
    """Return the bytes of a key that is taken over."""
    array = 0 if value.count is None else _TYPE + _LENGTH
    return _text(value.key) + _TYPE + array + value.end - value.begin


def text_key(key: str, value: str) -> int:
    return _text(key) + _TYPE + _text(value)


def number_key(key: str) -> int:
    """Return the bytes of a key of uint32."""
    return _text(key) + _TYPE + 4


def _text(text: str) -> int:
    return _LENGTH + len(text.encode())
