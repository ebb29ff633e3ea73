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
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path

from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.errors import UsageError

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


def exchange(new: Path, target: Path, aside: Path) -> None:
    """Exchange two files or folders: what was at `target` is then at `new`.

    Where the system cannot do that at once, what was at `target` is at `aside` for a moment.
    `restore` puts it back if the process ends within that moment.
    """
    if _renamed(new, target, _EXCHANGE):
        return
    try:
        os.rename(target, aside)
        os.rename(new, target)
    finally:
        if os.path.lexists(aside):
            os.rename(aside, new if os.path.lexists(target) else target)


def restore(target: Path, aside: Path) -> None:
    """Put back what an interrupted `exchange` has taken away.

    Raises
    ------
    FileExistsError
        There is something else by now.
    """
    if not os.path.lexists(aside):
        return
    if os.path.lexists(target):
        raise FileExistsError(
            f"'{aside}' is what '{target}' was before a run that was interrupted. Rename or remove "
            "it"
        )
    os.rename(aside, target)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it has; or nothing, if that is what is there."""
    if _is_folder(path):
        _allow_removal(path)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _allow_removal(folder: Path) -> None:
    set_mode(folder, mode_of(folder) | stat.S_IRWXU)
    for path in folder.iterdir():
        if _is_folder(path):
            _allow_removal(path)


@contextmanager
def keeping_modes(new: Path, target: Path) -> Iterator[None]:
    """Let what gets a name within the context have the permissions of what has it now.

    So have files in a folder. Folders that may not be written in cannot be moved; they may be
    written in until the end of the context.
    """
    for path in _tree(new):
        like = target / path.relative_to(new)
        if path != new and like.exists() and path.is_dir() == like.is_dir():
            take_over_mode(path, like)
    if not target.exists() or new.is_dir() != target.is_dir():
        yield
        return
    take_over_mode(new, target)
    if not new.is_dir():
        yield
        return
    mode = mode_of(target)
    for path in (new, target):
        set_mode(path, mode | stat.S_IRWXU)
    try:
        yield
    finally:
        if target.exists():
            set_mode(target, mode)


def take_over_mode(path: Path, like: Path) -> None:
    """Give a file or folder the owner, where that is allowed, and the permissions of another.

    A file does not become one that runs as its owner.
    """
    status, wanted = path.stat(), like.stat()
    if sys.platform != "win32" and (status.st_uid, status.st_gid) != (wanted.st_uid, wanted.st_gid):
        with suppress(PermissionError):
            os.chown(path, wanted.st_uid, wanted.st_gid)
    mode = stat.S_IMODE(wanted.st_mode)
    set_mode(path, mode if path.is_dir() else mode & ~(stat.S_ISUID | stat.S_ISGID))


def mode_of(path: Path) -> int:
    """Return the permissions of what is at a path."""
    return stat.S_IMODE(path.stat().st_mode)


def set_mode(path: Path, mode: int) -> None:
    """Set permissions, where the file system has them."""
    if mode_of(path) != mode:
        try:
            path.chmod(mode)
        except OSError as error:
            if error.errno not in _FORBIDDEN:
                raise


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def contents(path: Path) -> list[list[str | int]]:
    """Names, sizes and times of a file, or of all files in a folder; none where nothing is.

    They stay the same when the file or folder is renamed.
    """
    files = [file for file in _tree(path) if file.is_file()] if path.exists() else []
    found = ((file.relative_to(path), file.stat()) for file in files)
    return sorted([str(name), status.st_size, status.st_mtime_ns] for name, status in found)


def refuse_root(path: Path) -> None:
    """Raise where a destination has no name, beside which there could be others."""
    if not Path(os.path.realpath(path)).name:
        raise UsageError(f"'{path}' is the root folder; give the name of a new one")


def refuse_irreplaceable(path: Path) -> None:
    """Raise where nothing can be put at a path, which has been followed to the end of its links.

    That is where links lead in a circle, something is mounted at it or in it, or what is there is
    no file or folder.
    """
    if path.is_symlink():
        raise ValueError(f"'{path}' is a symbolic link that leads in a circle. Give another name")
    if not path.exists():
        return
    if not (path.is_file() or path.is_dir()):
        raise ValueError(
            f"'{path}' is a device, pipe or socket, which is not replaced. Give another name"
        )
    mounts = _mount_points()
    inside = next((mount for mount in mounts if path in mount.parents), None)
    if inside is not None and str(path) != path.anchor:
        raise ValueError(
            f"'{path}' has the mount point '{inside}' in it, so it is not replaced. Give another "
            "name"
        )
    if path in mounts or os.path.ismount(path):
        within = path / "model" if path.is_dir() else path.with_name(f"new-{path.name}")
        raise ValueError(
            f"'{path}' is a mount point, which cannot be replaced as a whole. Give a name in it "
            f"or elsewhere, such as '{within}'"
        )


def _mount_points() -> set[Path]:
    """Return where something is mounted, as far as the system says it."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:  # not Linux
        return set()
    names = (
        re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split(b" ")[4])
        for line in lines
    )
    return {Path(os.fsdecode(name)) for name in names}


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
        with naming_file(path):
            _flush(number)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _warn_of_sync(str(path.parent))
    finally:
        os.close(number)


def _flush(number: int) -> None:
    if sys.platform == "darwin":  # where fsync leaves data in what the disk itself has as a cache
        import fcntl

        try:
            fcntl.fcntl(number, fcntl.F_FULLFSYNC)
        except OSError as error:  # as disks of other machines may not know it
            if error.errno not in UNSUPPORTED:
                raise
        else:
            return
    os.fsync(number)


@lru_cache(maxsize=64)  # once
def _warn_of_sync(folder: str) -> None:
    warnings.warn(
        f"The file system of '{folder}' cannot tell when data is safe from a loss of power",
        UserWarning,
        stacklevel=2,
    )


def _tree(path: Path) -> Iterator[Path]:
    """What is in a folder, then the folder itself; or a file."""
    if _is_folder(path):
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
