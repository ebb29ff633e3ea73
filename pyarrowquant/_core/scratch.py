"""Hidden folders for outputs that are not complete yet, and what dead writers have left of them."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from pyarrowquant._core.file_names import refuse_impossible
from pyarrowquant._core.locks import closing, is_at, is_plain, lock
from pyarrowquant._core.placing import keeping_modes, refuse_irreplaceable, remove, sync
from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.errors import MissingFolderError

_LOCK = "lock"
_NAME = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp", re.DOTALL)


class Scratch:
    """A hidden folder beside an output, which is settled and removed at the end.

    Its file `lock` is locked while the writer lives: so the next writer of the same output tells
    a dead one, and does the same for it.

    Parameters
    ----------
    target : Path
        The output.
    settle : callable
        Gets the folder before it is removed; puts back what must not go with it. If it fails, the
        folder stays.
    """

    def __init__(self, target: Path, settle: Callable[[Path], object]) -> None:
        self._target = target
        self._settle = settle
        self._lock: IO[bytes]

    def open(self) -> Path:
        """Make the folder."""
        while True:
            self.folder = self._target.with_name(f".{self._target.name}.{secrets.token_hex(4)}.tmp")
            try:
                self.folder.mkdir()
            except FileNotFoundError:
                raise MissingFolderError(self._target.parent) from None
            try:
                self._lock = (self.folder / _LOCK).open("xb")
            except FileNotFoundError:  # another writer took it for that of a dead one
                continue
            except BaseException:  # an interrupt, also one that comes when the lock is there
                with suppress(OSError):
                    remove(self.folder)
                raise
            try:
                if lock(self._lock) is not False and is_at(self._lock, self.folder / _LOCK):
                    return self.folder
            except BaseException:
                self.close()
                raise
            self._lock.close()

    def close(self) -> None:
        with closing(self._lock), suppress(OSError):  # that it stays does no harm
            self._settle(self.folder)
            _remove(self.folder, self._lock)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file that has what it had, or the text, at every moment; its permissions stay."""
    refuse_impossible(path)
    target = Path(os.path.realpath(path))
    refuse_irreplaceable(target)
    clear(target, _leave)
    scratch = Scratch(target, _leave)
    new = scratch.open() / "new"
    try:
        with naming_file(path):
            new.write_text(text, encoding="utf-8", newline="\n")
            sync(new)
            with keeping_modes(new, target):
                os.replace(new, target)
            sync(target.parent)
    finally:
        scratch.close()


def _leave(_: Path) -> None:
    """Let a folder go as it is."""


def clear(target: Path, settle: Callable[[Path], object]) -> None:
    """Settle and remove what dead writers of an output have left, as far as this process may.

    What has no lock, as the system has none, or is of another user, stays.
    """
    with suppress(OSError):
        for name in sorted(os.listdir(target.parent)):
            found = _NAME.fullmatch(name)
            if found is not None and found[1] == target.name:
                with suppress(OSError):
                    _clear(target.with_name(name), settle)


def _clear(folder: Path, settle: Callable[[Path], object]) -> None:
    if not _may_be_removed(folder):
        return
    try:
        opened = (folder / _LOCK).open("r+b")
        with closing(opened):
            if lock(opened) and is_at(opened, folder / _LOCK):
                settle(folder)
                _remove(folder, opened)
    except FileNotFoundError:
        folder.rmdir()  # if it is empty: a writer died when it had just made it


def is_abandoned(folder: Path) -> bool:
    """Whether a folder is what a dead writer of some output has left."""
    if not (_NAME.fullmatch(folder.name) and _may_be_removed(folder)):
        return False
    with suppress(FileNotFoundError):
        opened = (folder / _LOCK).open("r+b")
        with closing(opened):
            return lock(opened) is True
    return not any(folder.iterdir())


def remove_all(folder: Path) -> None:
    """Remove what writers have left in a folder that nobody writes in any more."""
    for path in sorted(folder.rglob(".*.tmp")):
        if _NAME.fullmatch(path.name) and path.is_dir():
            remove(path)


def _may_be_removed(folder: Path) -> bool:
    """Whether a folder is one of this user, and opening its lock would not wait."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if sys.platform != "win32" and folder.stat().st_uid != os.geteuid():
        return False
    with suppress(FileNotFoundError):
        return is_plain(folder / _LOCK)
    return True


def _remove(folder: Path, lock: IO[bytes]) -> None:
    """Remove a folder, its lock last, so that another writer finds what is half removed."""
    for path in folder.iterdir():
        if path.name != _LOCK:
            remove(path)
    if sys.platform == "win32":
        lock.close()  # files that are open cannot be removed
    (folder / _LOCK).unlink()
    folder.rmdir()
