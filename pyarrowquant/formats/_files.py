"""Files and folders that get their names only when they are complete."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt


class Outputs:
    """Files that get their names together, at the end of the context, if nothing failed.

    Until then each is written under a hidden name beside its own.

    Parameters
    ----------
    paths : sequence of Path
        In the order in which the files get their names.
    overwrite : bool
        Whether existing files may be replaced.

    Raises
    ------
    FileExistsError
        One of the files exists.
    """

    def __init__(self, paths: Sequence[Path], overwrite: bool) -> None:
        self._overwrite = overwrite
        self._temporary = {
            path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp") for path in paths
        }
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
                for temporary in self._temporary.values():
                    _sync(temporary)
                for path, temporary in self._temporary.items():
                    os.replace(temporary, path)
                for folder in {path.parent for path in self._temporary}:
                    sync_folder(folder)
        finally:
            for temporary in self._temporary.values():
                temporary.unlink(missing_ok=True)

    def temporary(self, path: Path) -> Path:
        """Name under which the file is to be written."""
        return self._temporary[path]

    def _check(self) -> None:
        for path in self._temporary:
            if path.is_dir():
                raise IsADirectoryError(f"'{path}' is a folder; give the name of a file")
            if path.exists() and not self._overwrite:
                raise FileExistsError(f"'{path}' exists. Use overwrite=True to replace it")


class OutputFolder:
    """A folder of a model that appears at the end of the context, if nothing failed.

    Until then it has a hidden name beside its own.

    Parameters
    ----------
    folder : Path
    overwrite : bool
        Whether a folder of a model may be replaced, with all that it holds.
    source : Path
        A folder that must not be replaced.

    Raises
    ------
    FileExistsError
        There is something of this name that may not be replaced.
    ValueError
        The folder is the source, or the source lies in it.
    """

    def __init__(self, folder: Path, overwrite: bool, source: Path) -> None:
        self._folder = folder.resolve()
        self._overwrite = overwrite
        self._source = source.resolve()
        if self._folder in (self._source, *self._source.parents):
            raise ValueError(
                f"'{folder}' is the folder of the source model, or has it inside. Give another name"
            )
        if not self._folder.parent.is_dir():
            raise FileNotFoundError(f"No such folder: '{self._folder.parent}'")
        self.temporary = self._hidden("tmp")
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
                for path in self.temporary.rglob("*"):
                    if path.is_dir():
                        sync_folder(path)
                    else:
                        _sync(path)
                sync_folder(self.temporary)
                self._check()  # another process may have been faster
                self._put_in_place()
                sync_folder(self._folder.parent)
        finally:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _put_in_place(self) -> None:
        """Rename the folder; what it replaces is there again if that fails."""
        if not self._folder.exists():
            os.rename(self.temporary, self._folder)
            return
        old = self._hidden("old")
        os.rename(self._folder, old)
        try:
            os.rename(self.temporary, self._folder)
        except BaseException:
            os.rename(old, self._folder)
            raise
        shutil.rmtree(old)

    def _hidden(self, suffix: str) -> Path:
        return self._folder.with_name(f".{self._folder.name}.{secrets.token_hex(4)}.{suffix}")

    def _check(self) -> None:
        folder = self._folder
        if not folder.exists():
            return
        if not folder.is_dir():
            raise FileExistsError(f"'{folder}' is a file; give the name of a folder")
        if not any(folder.iterdir()):
            return
        if not self._overwrite:
            raise FileExistsError(f"'{folder}' exists. Use overwrite=True to replace it")
        check_replaceable(folder, [self._source], (".safetensors",))


def check_replaceable(folder: Path, sources: Sequence[Path], suffixes: Sequence[str]) -> None:
    """Raise where replacing a folder as a whole would lose what is not of a model.

    Parameters
    ----------
    folder : Path
        Is there already.
    sources : sequence of Path
        Subfolders that these have are written anew.
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
        if path.is_dir() and not any((source / path.name).is_dir() for source in sources):
            raise FileExistsError(
                f"'{folder}' has the folder '{path.name}', which would be lost, so it is not "
                "replaced. Give another name, or remove it"
            )


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
        return np.memmap(self._file, np.uint8, "r", offset, (size,))


def write_array(file: IO[bytes], data: npt.NDArray[Any]) -> int:
    """Write an array's bytes, little-endian; returns how many."""
    data = np.ascontiguousarray(data, data.dtype.newbyteorder("<"))
    if data.size:
        file.write(data.reshape(-1).view(np.uint8).data)
    return data.nbytes


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make sure that names in a folder outlast a loss of power."""
    if os.name == "posix":  # elsewhere folders cannot be opened
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
