"""One run at a time for a destination."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from pyarrowquant._core.placing import UNSUPPORTED
from pyarrowquant.errors import users_level

LOCK, COMPLETE = "lock", "complete.json"  # one of which the folder of a run has

# What says that another process has the lock.
_BUSY = {errno.EACCES, errno.EDEADLK} if sys.platform == "win32" else {errno.EWOULDBLOCK}
_NO_LOCKS = {errno.ENOLCK, *UNSUPPORTED}


def locked(folder: Path, destination: Path) -> IO[bytes]:
    """Lock the folder of the work, which a run that ends may remove at any time."""
    lock = folder / LOCK
    while True:
        if not _is_ours(folder):
            raise FileExistsError(f"'{folder}' is in the way: it is not of this program. Rename it")
        folder.mkdir(exist_ok=True)
        try:
            opened = lock.open("ab")
        except FileNotFoundError:
            continue
        try:
            if not _is_free(opened):
                raise BlockingIOError(f"Another run is writing '{destination.name}'")
            if lock.exists() and os.path.samestat(os.fstat(opened.fileno()), lock.stat()):
                return opened
        except BaseException:
            opened.close()
            raise
        opened.close()


def _is_ours(folder: Path) -> bool:
    """Whether a folder is that of a run, or there is none, or an empty one."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False
    return not names or LOCK in names or COMPLETE in names


def remove_unused(folder: Path) -> None:
    """Remove the folder of a run that has not begun: it has a lock at most, which nobody holds."""
    with suppress(OSError):
        if os.listdir(folder) == [LOCK]:
            with (folder / LOCK).open("ab") as lock:
                if not _is_free(lock):
                    return
                if sys.platform == "win32":
                    lock.close()  # files that are open cannot be removed
                (folder / LOCK).unlink()
        folder.rmdir()


def _is_free(file: IO[bytes]) -> bool:
    """Lock a file until it is closed or the process ends; False if another process has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno not in _NO_LOCKS:
            raise
        _say_no_locks(os.path.dirname(file.name))
    return True


@lru_cache(maxsize=64)  # once
def _say_no_locks(folder: str) -> None:
    warnings.warn(
        f"The file system of '{os.path.dirname(folder)}' has no locks: start no other run for the "
        "same destination",
        UserWarning,
        stacklevel=users_level(),
    )
