"""Models of llama.cpp in several files: which tensors are in which, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrowquant.formats._gguf_size import info_bytes, key_bytes, padded
from pyarrowquant.formats._origin import Split
from pyarrowquant.reading.gguf import import_gguf

_PART = re.compile(r"(.+)-\d{5}-of-\d{5}\.gguf")
_MOST = 65_535
_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"


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


@dataclass(frozen=True)
class Placed:
    """A tensor of a file.

    Attributes
    ----------
    name : str
    shape : tuple of int
    size : int
        Of its data.
    """

    name: str
    shape: tuple[int, ...]
    size: int


def cut(tensors: Sequence[Placed], split: Split, first: int, others: int) -> list[slice]:
    """Return which tensors are in which file, in their order.

    Parameters
    ----------
    tensors : sequence of Placed
    split : Split
    first, others : int
        Bytes of the first file, and of each other one, without tensors.

    Raises
    ------
    ValueError
        A tensor alone makes a file larger than that, or there would be too many files.
    """
    slices: list[slice] = []
    start, header, data = 0, first, 0
    for i, tensor in enumerate(tensors):
        more = info_bytes(tensor.name, tensor.shape)
        if i > start and padded(header + more) + data + padded(tensor.size) > split.size:
            slices.append(slice(start, i))
            start, header, data = i, others, 0
        header, data = header + more, data + padded(tensor.size)
        if i == start and padded(header) + data > split.size:
            raise ValueError(
                f"Invalid split: {split.size:,} bytes. A file with '{tensor.name}' has "
                f"{padded(header) + data:,} bytes, which is the least"
            )
    slices.append(slice(start, len(tensors)))
    if len(slices) > _MOST:
        raise ValueError(
            f"Invalid split: {split.size:,} bytes make {len(slices):,} files, and llama.cpp has at "
            f"most {_MOST:,}"
        )
    return slices


def say_part(writer: Any, number: int, count: int, tensors: int) -> None:
    """Add the keys that parts have, which are counted from 0 on there."""
    kinds = import_gguf("Writing").GGUFValueType
    writer.add_key_value(_NUMBER, number, kinds.UINT16)
    writer.add_key_value(_COUNT, count, kinds.UINT16)
    writer.add_key_value(_TENSORS, tensors, kinds.INT32)


def part_bytes() -> int:
    """Return the bytes of these keys."""
    kinds = import_gguf("Writing").GGUFValueType
    types = {_NUMBER: kinds.UINT16, _COUNT: kinds.UINT16, _TENSORS: kinds.INT32}
    return sum(key_bytes(key, 0, int(kind), None) for key, kind in types.items())


def writer_of_part() -> Any:
    """Return a writer without any keys, as only the first part says what the model is."""
    writer = import_gguf("Writing").GGUFWriter(None, "")
    writer.kv_data[0].clear()
    return writer
