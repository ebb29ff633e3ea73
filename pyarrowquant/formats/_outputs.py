"""Files and folders that get their names only when they are complete."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from pyarrowquant._core.placing import (
    exchange,
    is_empty_folder,
    keeping_modes,
    place,
    refuse_irreplaceable,
    remove,
    restore,
    sync,
    sync_tree,
)


class Outputs:
    """Files that get their names together, at the end of the context, if nothing failed.

    Until then each is written under a hidden name beside its own.

    Parameters
    ----------
    paths : sequence of Path
        In the order in which the files get their names. The last one is what makes the others
        usable: it is not there while they are replaced.
    overwrite : bool
        Whether existing files may be replaced. Their permissions stay.

    Raises
    ------
    FileExistsError
        One of the files exists.
    """

    def __init__(self, paths: Sequence[Path], overwrite: bool) -> None:
        self._overwrite = overwrite
        self._real = {path: Path(os.path.realpath(path)) for path in paths}
        self._last = self._real[paths[-1]]
        self._temporary = {path: _hidden(real, "tmp") for path, real in self._real.items()}
        self._check()

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._check()  # another process may have been faster
                self._put_in_place()
            check_room(error, self._last)
        except OSError as failure:
            check_room(failure, self._last)
            raise
        finally:
            for temporary in self._temporary.values():
                temporary.unlink(missing_ok=True)

    def temporary(self, path: Path) -> Path:
        """Name under which the file is to be written."""
        return self._temporary[path]

    def _check(self) -> None:
        for path, real in self._real.items():
            if real.is_dir():
                raise IsADirectoryError(f"'{path}' is a folder; give the name of a file")
            refuse_irreplaceable(real)
            if real.exists() and not self._overwrite:
                raise _exists(path)

    def _put_in_place(self) -> None:
        files = [(self._temporary[path], real) for path, real in self._real.items()]
        with ExitStack() as modes:
            for temporary, real in files:
                sync(temporary)
                modes.enter_context(keeping_modes(temporary, real))
            if not self._overwrite:
                _place_all(files)
            elif len(files) == 1:
                os.replace(*files[0])
            else:
                _replace_all(files)
        for folder in {real.parent for _, real in files}:
            sync(folder)


def _place_all(files: list[tuple[Path, Path]]) -> None:
    """Let files have names that are free, or none of them."""
    try:
        for temporary, path in files:
            try:
                place(temporary, path)
            except FileExistsError:
                raise _exists(path) from None
    except BaseException:
        for temporary, path in files:
            if not temporary.exists():
                os.rename(path, temporary)
        raise


def _replace_all(files: list[tuple[Path, Path]]) -> None:
    """Let files have their names, the last one's being free while others change; or none."""
    replaced = {path: _hidden(path, "old") for _, path in files if path.exists()}
    try:
        for path in reversed(replaced):
            os.rename(path, replaced[path])
        _place_all(files)
    except BaseException:
        for path, old in replaced.items():
            if old.exists():
                os.rename(old, path)
        raise
    for old in replaced.values():
        old.unlink()


class OutputFolder:
    """A folder of a model that appears at the end of the context, if nothing failed.

    Until then it has a hidden name beside its own.

    Parameters
    ----------
    folder : Path
    overwrite : bool
        Whether a folder of a model may be replaced, with all that it holds. Permissions stay.
    source : Path
        A folder that must not be replaced.
    written : collection of Path
        Files in subfolders that are written, relative to the folder.

    Raises
    ------
    FileExistsError
        There is something of this name that may not be replaced.
    ValueError
        The folder is the source, or the source lies in it.
    """

    def __init__(
        self, folder: Path, overwrite: bool, source: Path, written: Collection[Path]
    ) -> None:
        self._folder = Path(os.path.realpath(folder))
        self._overwrite = overwrite
        self._source = Path(os.path.realpath(source))
        self._written = written
        if self._folder in (self._source, *self._source.parents):
            raise ValueError(
                f"'{folder}' is the folder of the source model, or has it inside. Give another name"
            )
        if not self._folder.parent.is_dir():
            raise FileNotFoundError(f"No such folder: '{self._folder.parent}'")
        self.temporary = _hidden(self._folder, "tmp")
        _restore(self._folder)
        self._check()

    def __enter__(self) -> OutputFolder:
        self.temporary.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                sync_tree(self.temporary)
                self._check()  # another process may have been faster
                self._put_in_place()
                sync(self._folder.parent)
            check_room(error, self._folder)
        except OSError as failure:
            check_room(failure, self._folder)
            raise
        finally:
            with suppress(OSError):  # that it stays does no harm
                remove(self.temporary)  # or what was replaced

    def _put_in_place(self) -> None:
        folder = self._folder
        with keeping_modes(self.temporary, folder):
            if folder.exists() and not is_empty_folder(folder):
                exchange(self.temporary, folder, _aside(self.temporary))
                return
            try:
                place(self.temporary, folder)
            except FileExistsError:
                raise _exists(folder) from None

    def _check(self) -> None:
        folder = self._folder
        refuse_irreplaceable(folder)
        if not folder.exists():
            return
        if not folder.is_dir():
            raise FileExistsError(f"'{folder}' is a file; give the name of a folder")
        if is_empty_folder(folder):
            return
        if not self._overwrite:
            raise _exists(folder)
        check_replaceable(folder, self._written, (".safetensors",))


def check_room(error: BaseException | None, path: Path) -> None:
    """Raise anew, with the name of what was written, where the disk had no room for it."""
    if not isinstance(error, OSError) or error.filename is not None:
        return
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _hidden(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{suffix}")


def _aside(temporary: Path) -> Path:
    return temporary.with_suffix(".replaced")


def _restore(folder: Path) -> None:
    """Put back a folder that a process took away and, as it ended, did not replace."""
    for temporary in folder.parent.glob(f".{glob.escape(folder.name)}.????????.tmp"):
        if not os.path.lexists(folder):
            restore(folder, _aside(temporary))


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(f"'{path}' exists. Use overwrite=True to replace it")


def check_replaceable(folder: Path, written: Collection[Path], suffixes: Sequence[str]) -> None:
    """Raise where replacing a folder as a whole would lose what is not of a model.

    Parameters
    ----------
    folder : Path
        Is there already.
    written : collection of Path
        Files in subfolders that are written anew, relative to the folder.
    suffixes : sequence of str
        Of files that a model has, one of which must be there.
    """
    paths = list(folder.iterdir())
    if not any(path.name == "config.json" or path.suffix in suffixes for path in paths):
        files = ", ".join(f"*{suffix}" for suffix in suffixes)
        raise FileExistsError(
            f"'{folder}' has no model, neither config.json nor {files}, so it is not replaced. "
            "Give another name, or remove it"
        )
    for path in paths:
        kept = path.name != ".git" and (not path.is_dir() or _is_written(path, folder, written))
        if not kept:
            kind = "the folder " if path.is_dir() else ""
            raise FileExistsError(
                f"'{folder}' has {kind}'{path.name}', which would be lost, so it is not "
                "replaced. Give another name, or remove it"
            )


def _is_written(subfolder: Path, folder: Path, written: Collection[Path]) -> bool:
    """Whether all that a subfolder has is written anew."""
    paths = [Path(place, name) for place, _, names in os.walk(subfolder) for name in names]
    return bool(paths) and all(path.relative_to(folder) in written for path in paths)


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
