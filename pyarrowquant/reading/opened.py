"""Files that are open: mapped into memory, or read as their parts are asked for."""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from types import TracebackType
from typing import Any

import pyarrow as pa

from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.reading.uris import shown_uri


@contextmanager
def reached(filesystem: Any, path: str) -> Iterator[None]:
    """Raise an OSError where a store does not give a file, whatever its libraries raise."""
    if filesystem is None:
        with naming_file(path):
            yield
        return
    try:
        with naming_file(shown_uri(path)):
            yield
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:
        why = (str(error).splitlines() or [""])[0] or type(error).__name__
        name = getattr(getattr(filesystem, "handler", None), "fs", None)
        of = "" if name is None else f" by {type(name).__name__}"
        raise OSError(
            f"'{shown_uri(path)}' cannot be read{of}: {why}. Check the address, the credentials "
            "and the network, or download it and give the path of the files"
        ) from error


if sys.platform == "win32":
    _ALONE = _AS_USUAL = _FORGET = 0  # nothing can be told there
else:
    _ALONE, _AS_USUAL, _FORGET = mmap.MADV_RANDOM, mmap.MADV_NORMAL, mmap.MADV_DONTNEED
_READ_AHEAD = 1 << 20  # bytes; of so many what systems read ahead is a part


class NotMappedError(OSError):
    """The file is there, but cannot be mapped: some network and user-space file systems refuse."""


class MappedFile:
    """A file of this machine, mapped into memory until nobody refers to a part of it any more.

    Parameters
    ----------
    path : str or int
        The number of an open file is closed.

    Raises
    ------
    NotMappedError
        If it can be opened, but not mapped.
    """

    def __init__(self, path: str | int) -> None:
        self._path = path
        self._mapping: mmap.mmap | None = None
        with open(path, "rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            if self.size:  # nothing cannot be mapped
                try:
                    self._mapping = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)
                except OSError as error:
                    raise NotMappedError(error.errno, error.strerror, path) from error
        self._whole = pa.py_buffer(b"" if self._mapping is None else self._mapping)
        self._begin, self._end = self.size, 0  # of what was read and is not forgotten
        self._is_streamed = False  # so that nobody knows what was read

    def again(self) -> MappedFile:
        """Return the same file, which forgets what is read of it alone."""
        other = copy(self)
        other._begin, other._end = self.size, 0
        other._is_streamed = False
        return other

    def __enter__(self) -> MappedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._mapping = self._whole = None

    def buffer(self, offset: int, length: int) -> Any:
        """Return so many bytes at an offset, as a buffer."""
        self.check_size()
        if offset + length > self.size:  # which PyArrow does not check
            raise ValueError(f"{self._path}: {length} bytes at {offset} are beyond its {self.size}")
        self._begin, self._end = min(self._begin, offset), max(self._end, offset + length)
        return self._whole.slice(offset, length)

    def lone_buffer(self, offset: int, length: int) -> Any:
        """Return the same, where what lies around it is not needed: the system reads none of it."""
        buffer = self.buffer(offset, length)
        if length < _READ_AHEAD:
            self._advise(_ALONE, offset, offset + length)
        return buffer

    def check_size(self) -> None:
        """Raise where the file has another size than when it was opened."""
        if self._mapping is not None:
            with naming_file(self._path):
                now = self._mapping.size()
            check_size(self._path, self.size, now)

    def stream(self) -> Any:
        """Return the file for pyarrow's readers, which then refer to the mapped memory."""
        self._is_streamed = True
        return pa.BufferReader(self._whole)

    def forget_pages(self) -> None:
        """Take what was read out of the process's memory; it stays readable.

        For a whole file of many GB that takes milliseconds, even where little of it was read.
        """
        begin, end = (0, self.size) if self._is_streamed else (self._begin, self._end)
        self._advise(_FORGET, begin, end)
        self._advise(_AS_USUAL, begin, end)
        self._begin, self._end = self.size, 0

    def _advise(self, advice: int, begin: int, end: int) -> None:
        """Tell the system what becomes of some bytes, where it can be told."""
        if sys.platform != "win32" and self._mapping is not None and begin < end:
            first = begin // mmap.PAGESIZE * mmap.PAGESIZE
            self._mapping.madvise(advice, first, end - first)


class ReadFile:
    """A file whose parts are read into memory, by several threads if need be."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self._lock = threading.Lock()
        self._path = path
        self._filesystem = filesystem
        with reached(filesystem, path):
            self._file = pa.OSFile(path) if filesystem is None else filesystem.open_input_file(path)
            self.size: int = self._file.size()

    def __enter__(self) -> ReadFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def buffer(self, offset: int, length: int) -> Any:
        """Return so many bytes at an offset, as a buffer."""
        if length == 0:
            return pa.py_buffer(b"")
        with self._lock, reached(self._filesystem, self._path):
            self._file.seek(offset)
            buffer = self._file.read_buffer(length)
        if buffer.size != length:
            raise ValueError(
                f"{self._path}: {length} bytes at {offset} were asked for, {buffer.size} came"
            )
        return buffer

    lone_buffer = buffer

    def stream(self) -> Any:
        """Return the file for pyarrow's readers."""
        return self._file

    def forget_pages(self) -> None:
        """Do nothing: what was read is freed with its batch."""


def check_size(path: object, before: int, now: int) -> None:
    """Raise where a file has another size than when its header was read."""
    if now != before:
        raise ValueError(f"{path} had {before} bytes when its header was read, now it has {now}")
