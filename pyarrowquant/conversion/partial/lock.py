"""One run at a time for a destination."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from pyarrowquant._core.locks import closing, is_at, is_plain, lock
from pyarrowquant.errors import users_level

LOCK, COMPLETE = "lock", "complete.json"  # one of which the folder of a run has
RUN = "run.json"


def locked(folder: Path, destination: Path) -> IO[bytes]:
    """Lock the folder of the work, which a run that ends may remove at any time."""
    path = folder / LOCK
    while True:
        if not _is_ours(folder):
            raise FileExistsError(f"'{folder}' is in the way: it is not of this program. Rename it")
        folder.mkdir(exist_ok=True)
        for name in (LOCK, COMPLETE, RUN):
            refuse_others(folder / name)
        try:
            opened = path.open("ab")
        except FileNotFoundError:
            continue
        try:
            if not _is_free(opened):
                raise BlockingIOError(f"Another run is writing '{destination.name}'")
            if is_at(opened, path):
                return opened
        except BaseException:
            opened.close()
            raise
        opened.close()


def refuse_others(path: Path) -> None:
    """Raise where something else lies at the path of a file of a run."""
    with suppress(FileNotFoundError):
        if not is_plain(path):
            raise FileExistsError(
                f"'{path}' is a link, folder, device, pipe or socket, where a run has a file. "
                "Remove it"
            )


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
            if not is_plain(folder / LOCK):
                return
            opened = (folder / LOCK).open("ab")
            with closing(opened):
                if not _is_free(opened):
                    return
                if sys.platform == "win32":
                    opened.close()  # files that are open cannot be removed
                (folder / LOCK).unlink()
        folder.rmdir()


def _is_free(file: IO[bytes]) -> bool:
    """Lock a file until it is closed or the process ends; False if another process has."""
    taken = lock(file)
    if taken is None:
        _say_no_locks(os.path.dirname(file.name))
    return taken is not False


@lru_cache(maxsize=64)  # once
def _say_no_locks(folder: str) -> None:
    warnings.warn(
        f"The file system of '{os.path.dirname(folder)}' has no locks: start no other run for the "
        "same destination",
        UserWarning,
        stacklevel=users_level(),
    )
