"""Locks of files, which end with the process that holds them."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pyarrowquant._core.placing import UNSUPPORTED
from pyarrowquant._core.system_errors import name_file

_NO_LOCKS = {errno.ENOLCK, *UNSUPPORTED}


def lock(file: IO[bytes]) -> bool | None:
    """Lock a file until it is closed or the process ends, without waiting.

    Returns
    -------
    bool or None
        False if another process has the lock, None where the system has none.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in ({errno.EACCES} if sys.platform == "win32" else {errno.EWOULDBLOCK}):
            return False
        if error.errno not in _NO_LOCKS:
            name_file(error, file.name)
            raise
        return None
    return True


@contextmanager
def closing(file: IO[bytes]) -> Iterator[None]:
    """Close the file of a lock at the end; that this fails does no harm, as nothing was written."""
    try:
        yield
    finally:
        with suppress(OSError):
            file.close()


def is_at(file: IO[bytes], path: Path) -> bool:
    """Whether a path still leads to a file that is open."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def is_plain(path: Path) -> bool:
    """Whether a path is a file, and no link; opening a pipe would wait for its other end.

    Raises
    ------
    FileNotFoundError
        There is nothing.
    """
    return stat.S_ISREG(path.lstat().st_mode)
