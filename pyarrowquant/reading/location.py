"""Files and folders on this machine, on pyarrow's filesystems and on fsspec's."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant._core.arguments import wrong_type
from pyarrowquant._core.placing import refuse_root
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.errors import UsageError
from pyarrowquant.reading.file_info import FileInfo, Kind, info_in, local_info
from pyarrowquant.reading.opened import MappedFile, NotMappedError, ReadFile, reached
from pyarrowquant.reading.uris import is_uri, shown_uri

_LONGEST_POINTER = 1024
_POINTER = b"version https://git-lfs.github.com/spec/"

_OF_THE_HUB = re.compile(r"[\w-]+/[\w.-]+")  # an owner and a name


class OpenFiles:
    """The last few files that were opened, by their paths, as long as anybody has this object.

    Of all that were, it knows what those of this machine were before anything of them was read.
    """

    _MOST = 64  # as some systems allow 256 a process

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[str, MappedFile | ReadFile] = {}
        self._first: dict[str, tuple[int, ...]] = {}

    def open(self, location: Location) -> MappedFile | ReadFile:
        with self._lock:  # so that threads that open a file at the same time have the same one
            return self._open(location)

    def _open(self, location: Location) -> MappedFile | ReadFile:
        if location.path not in self._first and (state := _state(location)):
            self._first[location.path] = state
        file = self._opened.pop(location.path, None) or open_file(location)
        if isinstance(file, MappedFile):
            file.check_size()  # to read what is not there any more would end the process
        self._opened[location.path] = file
        if len(self._opened) > self._MOST:
            del self._opened[next(iter(self._opened))]
        return file.again() if isinstance(file, MappedFile) else file

    def has_changed(self, location: Location) -> bool:
        """Whether a file was written to, or replaced, since it was opened for the first time."""
        first = self._first.get(location.path)
        return first is not None and first != _state(location)


def _state(location: Location) -> tuple[int, ...]:
    """Return what tells a file of this machine from what it was before; nothing of another."""
    if not location.is_local:
        return ()
    with naming_file(location.path):
        status = os.stat(location.path)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@dataclass(frozen=True)
class Location:
    """A file or a folder of a filesystem; as a string, what errors call it.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem or None
        None for this machine: to import pyarrow.fs takes longer than to read what most files say.
    path : str
    files : OpenFiles, optional
        Keeps files open that are opened again and again, also those of locations that come from
        this one.
    """

    filesystem: Any
    path: str
    files: OpenFiles | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return shown_uri(self.path)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return self.filesystem is None

    @property
    def name(self) -> str:
        return os.path.basename(self._parts[0])

    @property
    def parent(self) -> Location:
        """The folder that this is in."""
        path, query = self._parts
        return replace(self, path=(path[: -len(self.name)] or ".") + query)

    def beside(self, name: str) -> Location:
        """Return the file of this name in the same folder."""
        path, query = self._parts
        return replace(self, path=path[: -len(self.name)] + name + query)

    def within(self, name: str) -> Location:
        """Return the file of this name in this folder."""
        path, query = self._parts
        return replace(self, path=f"{path}/{name}{query}")

    @property
    def _parts(self) -> tuple[str, str]:
        """The path, and the query of a URL, such as ``?download=true``, which names have not."""
        path, mark, query = self.path, "", ""
        if "://" in path:  # as filesystems of the web have it
            path, mark, query = path.partition("?")
        return path.rstrip("/" + os.sep if self.is_local else "/"), mark + query

    def is_file(self) -> bool:
        """Tell a file from a folder; what is neither, or not there, is an error."""
        kind = self.info().kind
        if kind is Kind.MISSING:
            hint = ""
            here = self.is_local and not os.path.isdir(os.path.dirname(self.path))
            if here and _OF_THE_HUB.fullmatch(self.path):
                hint = f". A model of the Hugging Face Hub is 'hf://{self.path}'"
            raise FileNotFoundError(f"No such file or folder: '{self}'{hint}")
        if kind is Kind.OTHER:
            raise ValueError(f"{self} is neither a file nor a folder")
        return kind is Kind.FILE

    def exists(self) -> bool:
        return self.info().kind is Kind.FILE

    @property
    def size(self) -> int:
        """The bytes of a file."""
        return self.info().bytes

    def info(self) -> FileInfo:
        """Tell what it is, without opening it."""
        (found,) = infos([self])
        return found

    def names_within(self) -> list[str]:
        """Return the names of all files in this folder and its subfolders, relative to it."""
        path = self._parts[0]
        return [
            info.path[info.path.index(path) + len(path) + 1 :]
            for info in self._files_in(recursive=True)
        ]

    def file_names(self) -> list[str]:
        """Return the sorted names of the files in this folder, but for those that macOS adds."""
        if self.is_local:
            with naming_file(self.path):
                entries = list(os.scandir(self.path))
            names = [entry.name for entry in entries if not entry.is_dir()]
            return sorted(name for name in names if not is_companion(name))
        return sorted(info.base_name for info in self._files_in(recursive=False))

    def _files_in(self, recursive: bool) -> list[Any]:
        """List the files of a folder of a store."""
        from pyarrow import fs

        with reached(self.filesystem, self.path):
            found = self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=recursive))
        return [info for info in found if info.is_file and not is_companion(info.base_name)]

    @contextmanager
    def open(self) -> Iterator[MappedFile | ReadFile]:
        """Give the opened file. What was read of it leaves the process's memory at the end."""
        if self.files is None:
            with open_file(self) as file:
                yield file
            return
        file = self.files.open(self)
        try:
            yield file
        finally:
            file.forget_pages()

    @contextmanager
    def open_unmapped(self) -> Iterator[ReadFile]:
        """Give the opened file for what Python copies of it.

        A file that is cut short is an error then; where it is mapped, it ends the process.
        """
        with self.open() as file:
            if isinstance(file, ReadFile):
                yield file
                return
            with ReadFile(self.filesystem, self.path) as unmapped:
                yield unmapped


def infos(files: Sequence[Location]) -> list[FileInfo]:
    """Tell what files of one file system are, without opening them; a store is asked once."""
    if not files:
        return []
    filesystem = files[0].filesystem
    with reached(filesystem, files[0].path):
        if filesystem is None:
            return [local_info(file.path) for file in files]
        return info_in(filesystem, [file.path for file in files])


def is_companion(name: str) -> bool:
    """Whether macOS put a file beside another, on disks that lack attributes of files."""
    return name.startswith("._")


def open_file(location: Location) -> MappedFile | ReadFile:
    """Open a file: mapped if it is one of this machine, and its file system maps files.

    Raises
    ------
    ValueError
        It is a pointer of git-lfs.
    """
    file = _open_file(location)
    if file.size < _LONGEST_POINTER and file.buffer(0, file.size).to_pybytes().startswith(_POINTER):
        file.__exit__(None, None, None)
        raise ValueError(
            f"{location} is a pointer of git-lfs, not the file itself. Fetch it with: git lfs pull"
        )
    return file


def _open_file(location: Location) -> MappedFile | ReadFile:
    if location.is_local:
        refuse_special(location.path)
        try:
            with naming_file(location.path):
                return MappedFile(location.path)
        except NotMappedError:
            pass
    return ReadFile(location.filesystem, location.path)


def refuse_special(path: str | os.PathLike[str]) -> None:
    """Raise where reading may never end: at a device, pipe or socket."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"'{os.fspath(path)}' is a device, pipe or socket. Give a file")


def check_name(path: str) -> None:
    """Raise where a path is no name, or not UTF-8, as Arrow's and all consumers' paths are."""
    if not path or "\0" in path:
        raise UsageError(f"{quoted(path)} is no path. Give the name of a file or folder")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{path!r}: the name is not UTF-8, the only encoding of names that is read and "
            "written. Rename it"
        ) from None


def path_text(name: str, path: object) -> str:
    """Return a path as text; another type is an error that names the argument."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise wrong_type(f"{name} must be a str or a path", path)
    return str(os.fspath(path))


def given_path(name: str, path: object) -> Path:
    """Return a path of this machine; what can be none is an error that names the argument."""
    text = path_text(name, path)
    check_name(text)
    return Path(text)


def given_folder(name: str, path: object) -> Path:
    """Return `given_path` of a folder that is written; the root folder is an error, too."""
    folder = given_path(name, path)
    refuse_root(folder)
    return folder


def locate(path: object, filesystem: object) -> Location:
    """Find out which filesystem a path means: the given one, that of a URI, or this machine."""
    text = path_text("path", path)
    check_name(text)
    if filesystem is not None:
        return Location(_pyarrow_filesystem(filesystem), text)
    if is_uri(path):
        return _locate_uri(text)
    return Location(None, text)


def _pyarrow_filesystem(filesystem: object) -> Any:
    """Return a filesystem of pyarrow's; None for this machine."""
    from pyarrow import fs

    if isinstance(filesystem, fs.LocalFileSystem):
        return None
    if isinstance(filesystem, fs.FileSystem):
        return filesystem
    try:
        from fsspec import AbstractFileSystem
    except ImportError:
        known = False
    else:
        known = isinstance(filesystem, AbstractFileSystem)
    if not known:
        raise wrong_type(
            "filesystem must be a pyarrow.fs.FileSystem or an fsspec filesystem", filesystem
        )
    return _from_fsspec(filesystem)


def _locate_uri(uri: str) -> Location:
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
        return Location(_pyarrow_filesystem(filesystem), path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # not one of pyarrow's schemes
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ImportError(f"'{shown_uri(uri)}' needs fsspec: pip install fsspec") from None
    try:
        filesystem, path = url_to_fs(uri)
    except ValueError as error:  # of a protocol that is not known
        raise UsageError(f"'{shown_uri(uri)}' cannot be opened: {error}") from error
    return Location(_from_fsspec(filesystem), path)


def _from_fsspec(filesystem: Any) -> Any:
    from pyarrow import fs

    protocol = filesystem.protocol
    if "file" in ((protocol,) if isinstance(protocol, str) else protocol):
        return None  # files of this machine are mapped
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem))
