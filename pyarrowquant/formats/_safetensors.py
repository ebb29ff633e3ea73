"""Safetensors files of tensors whose names and sizes are known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pyarrowquant.reading.safetensors_header import BITS

RESERVED = frozenset({"__metadata__"})


@dataclass(frozen=True)
class Entry:
    """A tensor of a file to write.

    Parameters
    ----------
    name : str
    dtype : str
        As safetensors has it.
    shape : tuple of int
    size : int
        Bytes.
    pieces : callable
        Gives the bytes, as buffers one after the other.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    pieces: Callable[[], Iterable[Any]]


def write_tensors(
    path: Path,
    entries: Sequence[Entry],
    format_name: str = "pt",
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a file; tensors of larger elements come first, so that all are aligned.

    Parameters
    ----------
    path : Path
    entries : sequence of Entry
    format_name : str
        What the metadata says, without which transformers before 5 refused files.
    metadata : mapping
        What else it says.
    """
    entries = sorted(entries, key=lambda entry: -BITS[entry.dtype])
    header: dict[str, Any] = {"__metadata__": {"format": format_name, **metadata}}
    position = 0
    for entry in entries:
        if entry.name in RESERVED:
            raise ValueError(f"A tensor of a safetensors file cannot be named '{entry.name}'")
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, position + entry.size],
        }
        position += entry.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in entries:
            written = sum(file.write(piece) for piece in entry.pieces())
            if written != entry.size:
                raise ValueError(f"'{entry.name}' has {written} bytes, expected {entry.size}")
