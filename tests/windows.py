"""A Windows that is played on Linux: what it has not is gone, and its file system's rules hold."""

from __future__ import annotations

import builtins
import errno
import fcntl
import importlib
import io
import mmap
import os
import pkgutil
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pyarrowquant

Name = str | os.PathLike[str] | int

# What the modules of Windows lack.
MISSING = {
    os: """chown chroot fchmod fchown fork geteuid getgid getuid killpg lchown major mkfifo mknod
        pread preadv pwrite pwritev posix_fadvise posix_fallocate register_at_fork sendfile
        sched_getaffinity sync O_DIRECTORY O_NOFOLLOW O_NONBLOCK""",
    mmap: "MADV_DONTNEED MAP_PRIVATE MAP_SHARED PROT_READ",
}

# The library, what ends processes, and what imports torch.
NOT_PLAYED = {"_pyarrowquant", "__main__", "calibration", "evaluation"}


class System(ModuleType):
    """The module sys of a package on Windows; all else stays what it is."""

    platform = "win32"

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)


class Locking(ModuleType):
    """The module msvcrt: a lock lasts until its file is closed."""

    LK_NBLCK = 2

    def locking(self, number: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES)) from None


def play(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package run as on Windows, until the test's end."""
    for found in pkgutil.walk_packages(pyarrowquant.__path__, "pyarrowquant."):
        if found.name.split(".")[1] in NOT_PLAYED:
            continue
        module = importlib.import_module(found.name)
        if getattr(module, "sys", None) is sys:
            monkeypatch.setattr(module, "sys", System("sys"))
    monkeypatch.setitem(sys.modules, "msvcrt", Locking("msvcrt"))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    for module, names in MISSING.items():
        for name in names.split():
            monkeypatch.delattr(module, name, raising=False)
    monkeypatch.setattr(tempfile, "TemporaryFile", tempfile.NamedTemporaryFile)
    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    _play_files(monkeypatch)
    _play_text(monkeypatch)


def _play_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of text end with two characters, and it has few others, unless it is said."""
    opened = io.open

    def open_file(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *more: Any,
        **named: Any,
    ) -> Any:
        if "b" not in mode:
            encoding = "cp1252" if encoding in (None, "locale") else encoding
            newline = "\r\n" if newline is None and mode.strip("t") != "r" else newline
        return opened(file, mode, buffering, encoding, errors, newline, *more, **named)

    monkeypatch.setattr(io, "open", open_file)
    monkeypatch.setattr(builtins, "open", open_file)


def _play_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is open or mapped keeps its name; a name that is taken is kept; folders do not open."""
    rename, replace, unlink, link = os.rename, os.replace, os.unlink, os.link
    opened, fsync = os.open, os.fsync

    def renamed(old: Name, new: Name) -> None:
        _refuse_used(old)
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
        rename(old, new)

    def replaced(old: Name, new: Name) -> None:
        _refuse_used(old)
        _refuse_used(new)
        if os.path.isdir(new):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(new))
        replace(old, new)

    def unlinked(path: Name) -> None:
        _refuse_used(path)
        unlink(path)

    def open_file(path: Name, flags: int, mode: int = 0o777) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, mode)

    def synced(number: int) -> None:
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        fsync(number)

    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "unlink", unlinked)
    monkeypatch.setattr(os, "remove", unlinked)
    monkeypatch.setattr(os, "link", lambda old, new: link(old, new))
    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "fsync", synced)


def _refuse_used(path: Name) -> None:
    used = _used()
    for each in [Path(path), *Path(path).rglob("*")]:
        if each.is_file() and _identity(each.stat()) in used:
            raise PermissionError(errno.EACCES, "it is open in this process", str(each))


def _used() -> set[tuple[int, int]]:
    """Files that this process has open, or mapped."""
    return {*_open_files(), *_mapped_files()}


def _open_files() -> Iterator[tuple[int, int]]:
    for number in os.listdir("/proc/self/fd"):
        try:
            yield _identity(os.fstat(int(number)))
        except OSError:  # that of the list itself
            continue


def _mapped_files() -> Iterator[tuple[int, int]]:
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        _, _, _, device, inode, *_ = line.split()
        major, minor = (int(part, 16) for part in device.split(":"))
        yield os.makedev(major, minor), int(inode)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
