"""Models of llama.cpp in several files: which tensors are in which, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._gguf_layout import Placed, info_bytes, padded
from pyarrowquant.formats._origin import Split
from pyarrowquant.reading.gguf_header import INT32, UINT16
from pyarrowquant.reading.gguf_keys import encoded_key

_PART = re.compile(r"(.+)-\d{5}-of-\d{5}\.gguf")
_MOST = 65_535
_LONGEST_NAME, _MOST_DIMENSIONS = 63, 4  # that llama.cpp has


def split_of(destination: Path, size: int) -> Split:
    """Return how an output is split whose parts are named after a destination."""
    name = destination.name
    return Split(name[:-5] if name.lower().endswith(".gguf") else name, size)


def is_part(name: str) -> bool:
    """Whether a file has the name of a part."""
    return _PART.fullmatch(name) is not None


def is_part_of(name: str, other: str) -> bool:
    """Whether a file has the name of a part that another one is named after, too."""
    parts = _PART.fullmatch(name), _PART.fullmatch(other)
    return None not in parts and len({found[1] for found in parts if found}) == 1


def part_name(name: str, number: int, count: int) -> str:
    """Return the name of one of the parts, which are counted from 1 on."""
    return f"{name}-{number:05d}-of-{count:05d}.gguf"


def parts_beside(destination: Path, name: str) -> list[Path]:
    """Return the parts of a name that lie beside a destination, of however many files."""
    if not destination.parent.is_dir():
        return []
    files = ((file, _PART.fullmatch(file.name)) for file in destination.parent.iterdir())
    return sorted(file for file, found in files if found is not None and found[1] == name)


def room_of(split: Split, first: int, alignment: int) -> int:
    """Return how many bytes of a tensor's data each file has room for, whatever its name.

    Parameters
    ----------
    split : Split
    first : int
        Bytes of what the first file says of the model.
    alignment : int
    """
    said = sum(map(len, part_keys(0, 0, 0)))
    longest = info_bytes("x" * _LONGEST_NAME, (1,) * _MOST_DIMENSIONS)
    room = split.size - padded(first + said + longest, alignment)
    return room // alignment * alignment


def cut(
    tensors: Sequence[Placed], split: Split, first: int, others: int, alignment: int
) -> list[slice]:
    """Return which tensors are in which file, in their order.

    Parameters
    ----------
    tensors : sequence of Placed
    split : Split
    first, others : int
        Bytes of the first file, and of each other one, without tensors.
    alignment : int

    Raises
    ------
    UsageError
        A tensor alone makes a file larger than that, or there would be too many files.
    """
    slices: list[slice] = []
    start, header, data = 0, first, 0
    for i, tensor in enumerate(tensors):
        more, size = info_bytes(tensor.name, tensor.shape), padded(tensor.size, alignment)
        if i > start and padded(header + more, alignment) + data + size > split.size:
            slices.append(slice(start, i))
            start, header, data = i, others, 0
        header, data = header + more, data + size
        if i == start and padded(header, alignment) + data > split.size:
            raise UsageError(
                f"Invalid split: {split.size:,} bytes. {_least(tensors, first, others, alignment)}"
            )
    slices.append(slice(start, len(tensors)))
    if len(slices) > _MOST:
        raise UsageError(
            f"Invalid split: {split.size:,} bytes make {len(slices):,} files, and llama.cpp has at "
            f"most {_MOST:,}"
        )
    return slices


def _least(tensors: Sequence[Placed], first: int, others: int, alignment: int) -> str:
    """Say which tensor alone makes the largest file, and how large that is."""
    sizes = {
        tensor.name: padded(header + info_bytes(tensor.name, tensor.shape), alignment)
        + padded(tensor.size, alignment)
        for header, tensor in zip((first, *(others for _ in tensors[1:])), tensors, strict=True)
    }
    name = max(sizes, key=sizes.__getitem__)
    return f"A file with {quoted(name)} has {sizes[name]:,} bytes, which is the least"


def part_keys(number: int, count: int, tensors: int) -> list[bytes]:
    """Return the keys that parts have, which are counted from 0 on there."""
    return [
        encoded_key("split.no", number, UINT16),
        encoded_key("split.count", count, UINT16),
        encoded_key("split.tensors.count", tensors, INT32),
    ]
