"""Files and folders get their names: at every moment there is what was, or what is new."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path

# What systems and file systems answer to what they do not offer.
UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_FORBIDDEN = {errno.EPERM, *UNSUPPORTED}  # what sandboxes and FAT answer, too

_EXCLUSIVE, _EXCHANGE = "exclusive", "exchange"


def place(new: Path, target: Path) -> None:
    """Rename to a name that is free; a folder may take that of an empty folder.

    Raises
    ------
    FileExistsError
        Something has the name.
    """
    if new.is_dir():
        _place_folder(new, target)
    elif not _renamed(new, target, _EXCLUSIVE):
        try:
            os.link(new, target)
        except OSError as error:
            if error.errno not in _FORBIDDEN:
                raise
            if os.path.lexists(target):
                raise _taken(target) from None
            os.rename(new, target)
        else:
            os.unlink(new)


def _place_folder(new: Path, target: Path) -> None:
    if sys.platform == "win32" and is_empty_folder(target):
        target.rmdir()
    try:
        os.rename(new, target)  # never replaces but an empty folder
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR, errno.EEXIST):
            raise _taken(target) from None
        raise


def _taken(target: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def exchange(new: Path, target: Path) -> None:
    """Exchange two files or folders: what was at `target` is then at `new`.

    Where the system cannot do that at once, what was at `target` has another name for a moment.
    `restore` puts it back if the process ends within that moment.
    """
    if _renamed(new, target, _EXCHANGE):
        return
    aside = _aside(target)
    try:
        os.rename(target, aside)
        os.rename(new, target)
    finally:
        if os.path.lexists(aside):
            os.rename(aside, new if os.path.lexists(target) else target)


def restore(target: Path) -> None:
    """Put back what an interrupted `exchange` has taken away.

    Raises
    ------
    FileExistsError
        There is something else by now.
    """
    aside = _aside(target)
    if not os.path.lexists(aside):
        return
    if os.path.lexists(target):
        raise FileExistsError(
            f"'{aside}' is what '{target}' was before a run that was interrupted. Rename or remove "
            "it"
        )
    os.rename(aside, target)


def discard_replaced(target: Path) -> None:
    """Remove what an interrupted `exchange` has replaced by what is at `target`."""
    remove(_aside(target))


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it has; or nothing, if that is what is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def keep_modes(new: Path, old: Path) -> None:
    """Give a file, or a folder and its files, the permissions of those of the same names."""
    for path in _tree(new):
        like = old / path.relative_to(new)
        if like.exists() and path.is_dir() == like.is_dir():
            try:
                path.chmod(stat.S_IMODE(like.stat().st_mode))
            except OSError as error:
                if error.errno not in _FORBIDDEN:
                    raise


def contents(path: Path) -> list[list[str | int]]:
    """Names, sizes and times of a file, or of all files in a folder; none where nothing is.

    They stay the same when the file or folder is renamed.
    """
    files = [file for file in _tree(path) if file.is_file()] if path.exists() else []
    found = ((file.relative_to(path), file.stat()) for file in files)
    return sorted([str(name), status.st_size, status.st_mtime_ns] for name, status in found)


def refuse_loop(path: Path) -> None:
    """Raise where symbolic links lead nowhere; `path` has been followed to its end."""
    if path.is_symlink():
        raise ValueError(f"'{path}' is a symbolic link that leads in a circle. Give another name")


def refuse_mount_point(path: Path) -> None:
    """Raise where something is mounted at a path: it can be neither renamed nor replaced."""
    if _is_mount_point(os.path.realpath(path)):
        within = path / "model" if path.is_dir() else path.with_name(f"new-{path.name}")
        raise ValueError(
            f"'{path}' is a mount point, which cannot be replaced as a whole. Give a name in it "
            f"or elsewhere, such as '{within}'"
        )


def _is_mount_point(path: str) -> bool:
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:  # not Linux
        return os.path.ismount(path)
    return os.fsencode(path) in (
        re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split(b" ")[4])
        for line in lines
    )


def is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def sync_tree(path: Path) -> None:
    """Make sure that a file, or a folder with all that it has, outlasts a loss of power."""
    for each in _tree(path):
        sync(each)


def sync(path: Path) -> None:
    """Make sure that the data of a file, or the names in a folder, outlast a loss of power."""
    if sys.platform != "win32":
        number = os.open(path, os.O_RDONLY)
    elif path.is_dir():
        return  # folders cannot be opened there
    else:
        number = os.open(path, os.O_RDWR)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _warn_of_sync(str(path.parent))
    finally:
        os.close(number)


@lru_cache(maxsize=64)  # once
def _warn_of_sync(folder: str) -> None:
    warnings.warn(
        f"The file system of '{folder}' cannot tell when data is safe from a loss of power",
        UserWarning,
        stacklevel=2,
    )


def _tree(path: Path) -> Iterator[Path]:
    """What is in a folder, then the folder itself; or a file."""
    if path.is_dir() and not path.is_symlink():
        for each in sorted(path.iterdir()):
            yield from _tree(each)
    yield path


def _renamed(old: Path, new: Path, how: str) -> bool:
    """Rename in a way that plain rename has not; False where that is not to be had."""
    call = _system_call(how)
    if call is None:
        return False
    if call(os.fsencode(old), os.fsencode(new)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _FORBIDDEN:
        return False
    raise OSError(number, os.strerror(number), str(old), None, str(new))


@cache
def _system_call(how: str) -> Callable[[bytes, bytes], int] | None:
    name = {"linux": "renameat2", "darwin": "renamex_np"}.get(sys.platform)
    function = name and getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if not function:  # another system, or an old one
        return None
    if sys.platform == "darwin":
        flag = ctypes.c_uint({_EXCLUSIVE: 4, _EXCHANGE: 2}[how])
        return lambda old, new: int(function(old, new, flag))
    flag = ctypes.c_uint({_EXCLUSIVE: 1, _EXCHANGE: 2}[how])
    here = ctypes.c_int(-100)  # AT_FDCWD
    return lambda old, new: int(function(here, old, here, new, flag))
