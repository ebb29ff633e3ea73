"""What is at a path of this machine, or of a filesystem of pyarrow's."""

from __future__ import annotations

import os
import stat
from enum import Enum
from typing import Any, NamedTuple


class Kind(Enum):
    """What a path leads to."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "neither"
    MISSING = "missing"


class FileInfo(NamedTuple):
    """What is told of a path without opening it."""

    kind: Kind
    bytes: int
    modified_ns: int | None


_MISSING = FileInfo(Kind.MISSING, 0, None)


def local_info(path: str) -> FileInfo:
    """Tell what is at a path of this machine, as links lead."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    if stat.S_ISREG(status.st_mode):
        kind = Kind.FILE
    else:
        kind = Kind.FOLDER if stat.S_ISDIR(status.st_mode) else Kind.OTHER
    return FileInfo(kind, status.st_size, status.st_mtime_ns)


def info_in(filesystem: Any, paths: list[str]) -> list[FileInfo]:
    """Tell what is at paths of a pyarrow.fs.FileSystem."""
    return [_known(info) for info in filesystem.get_file_info(paths)]


def _known(info: Any) -> FileInfo:
    from pyarrow import fs

    kinds = {
        fs.FileType.File: Kind.FILE,
        fs.FileType.Directory: Kind.FOLDER,
        fs.FileType.NotFound: Kind.MISSING,
    }
    return FileInfo(kinds.get(info.type, Kind.OTHER), info.size or 0, info.mtime_ns)
