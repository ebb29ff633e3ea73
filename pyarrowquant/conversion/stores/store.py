"""Places in stores, such as s3:// and gs://, which an output goes to file by file."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyarrowquant.conversion.partial.journal import Stamp
from pyarrowquant.errors import UsageError
from pyarrowquant.reading.location import Location, locate
from pyarrowquant.reading.uris import shown_uri

_PIECE = 1 << 23
_UNSENT = 1 << 26  # bytes that may wait in memory until they are sent
# What pyarrow's texts have where credentials lack, are wrong or do not allow something.
_DENIED = ("ACCESS_DENIED", "SIGNATURE", "ACCESS_KEY", "Forbidden", "HTTP status 403")
_MOST_COPIED = 5 * 10**9  # bytes that S3 copies at once


class Store:
    """Where an output is to be in a store: a file, or what is a folder by its name.

    It can be pickled. Another machine opens the URI with the configuration that it has.

    Parameters
    ----------
    uri : str
    location : Location
        Where that leads.

    Raises
    ------
    UsageError
        It is no file or folder in a bucket.
    """

    def __init__(self, uri: str, location: Location) -> None:
        self._uri = uri
        self._shown = shown_uri(uri).rstrip("/")
        self._filesystem = location.filesystem
        self._path = location.path.rstrip("/")
        if not os.path.dirname(self._path).strip("/"):
            raise UsageError(
                f"'{self}' is a whole bucket. Give a name in it, such as '{self}/model'"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self._uri,)

    def __str__(self) -> str:
        """Return what messages call it, which has no credentials."""
        return self._shown

    @property
    def name(self) -> str:
        return os.path.basename(self._path)

    def beside(self, name: str) -> str:
        """Return the path of what lies beside it."""
        return f"{os.path.dirname(self._path)}/{name}"

    def within(self, name: str) -> str:
        """Return the path of what lies in it."""
        return f"{self._path}/{name}"

    def shown_beside(self, name: str) -> str:
        """Return what messages call a file beside it."""
        return f"{self._shown[: -len(self.name)]}{name}"

    def has_file(self, name: str | None = None) -> bool:
        """Whether it is a file, or has one of a name."""
        return self.stamp(self._path if name is None else self.within(name)) is not None

    def holds(self, file: Location) -> bool:
        """Whether a file is it, or lies in it."""
        if file.is_local or not self._filesystem.equals(file.filesystem):
            return False
        return f"{file.path}/".startswith(f"{self._path}/")

    def stamps(self, paths: Sequence[str]) -> list[Stamp | None]:
        """Tell what objects are there now; None for those that are not."""
        with self._reached():
            found = self._filesystem.get_file_info(list(paths))
            return [self._stamp(info) if info.is_file else None for info in found]

    def stamp(self, path: str) -> Stamp | None:
        """Tell what object is there now."""
        (found,) = self.stamps([path])
        return found

    def _stamp(self, info: Any) -> Stamp:
        checksum = self._checksum(info.path)
        return Stamp(info.size, info.mtime_ns if checksum is None else None, checksum)

    def _checksum(self, path: str) -> str | None:
        from pyarrow import fs

        if isinstance(self._filesystem, fs.PyFileSystem):
            handler = self._filesystem.handler
            return str(handler.fs.checksum(path)) if isinstance(handler, fs.FSSpecHandler) else None
        with self._filesystem.open_input_stream(path) as opened:
            said = opened.metadata() or {}
        tag = said.get(b"ETag", said.get("ETag"))
        return tag.decode() if isinstance(tag, bytes) else tag

    def names_within(self) -> list[str]:
        """List the objects in it, by their names relative to it.

        Some stores leave out what was put there a moment ago.
        """
        return self._names(self._path, recursive=True)

    def names_beside(self) -> list[str]:
        """List the objects beside it, likewise."""
        return self._names(os.path.dirname(self._path), recursive=False)

    def _names(self, folder: str, recursive: bool) -> list[str]:
        from pyarrow import fs

        selector = fs.FileSelector(folder, allow_not_found=True, recursive=recursive)
        with self._reached():
            found = self._filesystem.get_file_info(selector)
        paths = (info.path for info in found if info.is_file)
        return sorted(path[path.rindex(f"{folder}/") + len(folder) + 1 :] for path in paths)

    def read(self, path: str) -> bytes | None:
        """Read a small object; None if there is none."""
        with self._reached():
            try:
                with self._filesystem.open_input_stream(path) as opened:
                    return bytes(opened.read())
            except FileNotFoundError:
                return None

    def download(self, path: str, file: Path) -> bool:
        """Copy an object to this machine; False if there is none."""
        with self._reached():
            try:
                with self._filesystem.open_input_stream(path) as source, file.open("wb") as target:
                    while piece := source.read(_PIECE):
                        target.write(piece)
            except FileNotFoundError:
                return False
        return True

    def write(self, path: str, data: bytes) -> None:
        """Write a small object, which replaces another."""
        with self._reached(), self._written(path) as sink:
            sink.write(data)

    def upload(self, file: Path, path: str) -> Stamp:
        """Copy a file to the store, where it is visible only when it is whole."""
        with file.open("rb") as source:
            self._copy(source, path)
        found = self.stamp(path)
        if found is None or found.bytes != file.stat().st_size:
            has = "is not there" if found is None else f"has {found.bytes:,} bytes"
            raise OSError(
                f"'{self}': '{path}' was written with {file.stat().st_size:,} bytes, and {has}. "
                "resume=True tries it again"
            )
        return found

    def copy(self, path: str, target: str, size: int) -> None:
        """Copy an object within the store."""
        if size < _MOST_COPIED:
            with self._reached():
                self._filesystem.copy_file(path, target)
            return
        with self._reached(), self._filesystem.open_input_stream(path) as source:
            self._copy(source, target)

    def remove(self, path: str) -> None:
        """Remove an object, if there is one."""
        with self._reached(), suppress(FileNotFoundError):
            self._filesystem.delete_file(path)

    def remove_folder(self, path: str) -> None:
        """Remove all objects of what is a folder by its name, if there are any."""
        from pyarrow import fs

        with self._reached(), suppress(FileNotFoundError):
            if self._filesystem.get_file_info(path).type != fs.FileType.NotFound:  # as gs:// asks
                self._filesystem.delete_dir(path)

    def _copy(self, source: Any, path: str) -> None:
        unsent = 0
        with self._reached(), self._written(path) as sink:
            while piece := source.read(_PIECE):
                sink.write(piece)
                unsent += len(piece)
                if unsent >= _UNSENT:  # else all that was not sent yet would be in memory
                    sink.flush()
                    unsent = 0

    @contextmanager
    def _written(self, path: str) -> Iterator[Any]:
        """Give a stream to a new object, of which nothing gets visible if the context fails."""
        sink = self._filesystem.open_output_stream(path)
        try:
            yield sink
            sink.close()
        except BaseException:
            _abandon(sink)
            raise

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Name the place where a store refuses something, and say what to do."""
        try:
            yield
        except (ImportError, MemoryError, UsageError):
            raise
        except Exception as error:
            raise problem(str(self), error) from None


def located(uri: str) -> Location:
    """Find where a URI leads.

    Raises
    ------
    ImportError
        A package that knows the store is missing.
    OSError
        The store is not reached.
    """
    try:
        return locate(uri, None)
    except (ImportError, UsageError):
        raise
    except Exception as error:  # whatever the libraries of fsspec raise
        raise problem(shown_uri(uri), error) from None


def _opened(uri: str) -> Store:
    return Store(uri, located(uri))


def _abandon(stream: Any) -> None:
    """Let go of a stream without closing it, which would make an object of what it has got.

    PyArrow closes streams that nobody refers to any more, so this one is referred to for ever.
    The store forgets the parts that it has got when its rules say so.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))


def problem(place: str, error: Exception) -> OSError:
    """Say what a store has refused, and what to do."""
    why = (str(error).splitlines() or [""])[0] or type(error).__name__
    denied = isinstance(error, PermissionError) or any(word in why for word in _DENIED)
    kind = PermissionError if denied else OSError
    what = (
        "Check the credentials that are found here, and what they allow"
        if denied
        else "Check the name, that the bucket is there, and the network"
    )
    return kind(f"'{place}': {why}. {what}")
