"""Safetensors files of tensors whose names and sizes are known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.formats._outline import KnownRegion, Outline, OutlinedFile, Region
from pyarrowquant.reading.safetensors_header import BITS

RESERVED = frozenset({"__metadata__"})


@dataclass(frozen=True)
class Entry:
    """A tensor of a file to write.

    Attributes
    ----------
    name : str
    dtype : str
        As safetensors has it.
    shape : tuple of int
    regions : sequence of Region
        Its bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    regions: Sequence[Region]

    @classmethod
    def known(
        cls,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        size: int,
        pieces: Callable[[], Iterable[Any]],
    ) -> Entry:
        """Return a tensor of so many bytes that need no results."""
        return cls(name, dtype, shape, [KnownRegion(size, pieces)])

    @property
    def size(self) -> int:
        return sum(region.size for region in self.regions)


def outlined(
    name: str,
    entries: Iterable[Entry],
    format_name: str = "pt",
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> OutlinedFile:
    """Return a file; tensors of larger elements come first, so that all are aligned.

    Parameters
    ----------
    name : str
        As of `OutlinedFile`.
    entries : iterable of Entry
    format_name : str
        What the metadata says, without which transformers before 5 refused files.
    metadata : mapping
        What else it says; of a model's file, what that says.
    """
    entries = sorted(entries, key=lambda entry: -BITS[entry.dtype])
    header: dict[str, Any] = {"__metadata__": {**metadata, "format": format_name}}
    position = 0
    for entry in entries:
        if entry.name in RESERVED:
            raise ValueError(f"A tensor of a safetensors file cannot be named {quoted(entry.name)}")
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [position, position + entry.size],
        }
        position += entry.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    regions = [region for entry in entries for region in entry.regions]
    return OutlinedFile(name, len(text).to_bytes(8, "little") + text, regions)


def write_tensors(
    path: Path, entries: Iterable[Entry], metadata: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write a file of tensors that need no results."""
    Outline([outlined("", entries, metadata=metadata)]).write(path, {})
