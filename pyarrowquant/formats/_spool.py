"""Data of unknown length, kept until it is written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt


class Spool:
    """Data of unknown length in a nameless temporary file, which its end removes.

    It lies in the folder of the output, so that no more than that one disk has to have room.
    """

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, it has the life of this object
        self.size = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, data: npt.NDArray[Any]) -> None:
        self.size += write_array(self._file, data)

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """Give bytes of the file, some MiB at a time; nothing may be appended any more."""
        self._file.seek(offset)
        while size:
            piece = self._file.read(min(size, 1 << 22))
            size -= len(piece)
            yield piece

    def view(self, offset: int, size: int) -> npt.NDArray[np.uint8]:
        """Bytes of the file, read as they are used."""
        self._file.flush()
        try:
            return np.memmap(self._file, np.uint8, "r", offset, (size,))
        except OSError:  # file systems that map no files
            return np.frombuffer(b"".join(self.pieces(offset, size)), np.uint8)


class Writable(Protocol):
    """What bytes are written to."""

    def write(self, data: Any, /) -> int: ...


def write_array(file: Writable, data: npt.NDArray[Any]) -> int:
    """Write an array's bytes, little-endian; returns how many."""
    data = np.ascontiguousarray(data, data.dtype.newbyteorder("<"))
    if data.size:
        file.write(data.reshape(-1).view(np.uint8).data)
    return data.nbytes
