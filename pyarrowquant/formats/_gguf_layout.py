"""What a GGUF file is beside the blocks of its layers: the header, and how data is aligned."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pyarrowquant.reading.gguf_header import DEFAULT_ALIGNMENT
from pyarrowquant.reading.gguf_keys import text

_VERSION = 3
_START = struct.Struct("<4sIQQ")  # the magic, the version, the counts of tensors and keys


@dataclass(frozen=True)
class Placed:
    """A tensor of a file.

    Attributes
    ----------
    name : str
    shape : tuple of int
    size : int
        Of its data, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    size: int


def header(
    keys: Sequence[bytes],
    tensors: Sequence[Placed],
    types: Sequence[int],
    alignment: int = DEFAULT_ALIGNMENT,
) -> bytes:
    """Return what a file begins with.

    Parameters
    ----------
    keys : sequence of bytes
        What the header has for each key.
    tensors : sequence of Placed
        In the order of their data.
    types : sequence of int
        The number of each tensor's type.
    alignment : int
        Of the data of tensors, as the keys say it.
    """
    start = _START.pack(b"GGUF", _VERSION, len(tensors), len(keys))
    sizes = (padded(tensor.size, alignment) for tensor in tensors)
    infos = map(_info, tensors, types, accumulate(sizes, initial=0))
    return b"".join([start, *keys, *infos])


def header_bytes(
    keys: Iterable[bytes],
    tensors: Iterable[tuple[str, Sequence[int]]],
    alignment: int = DEFAULT_ALIGNMENT,
) -> int:
    """Return where the data of tensors begins, which have such names and shapes."""
    infos = (info_bytes(name, shape) for name, shape in tensors)
    return padded(_START.size + sum(map(len, keys)) + sum(infos), alignment)


def info_bytes(name: str, shape: Sequence[int]) -> int:
    """Return the bytes that a header has for a tensor."""
    return len(_info(Placed(name, tuple(shape), 0), 0, 0))


def padded(size: int, alignment: int = DEFAULT_ALIGNMENT) -> int:
    """Return what bytes take that others follow."""
    return -(-size // alignment) * alignment


def _info(tensor: Placed, type_: int, offset: int) -> bytes:
    shape = tensor.shape[::-1] or (1,)
    numbers = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_, offset)
    return text(tensor.name) + numbers
