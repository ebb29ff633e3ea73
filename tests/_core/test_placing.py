"""What is new takes its place at once, or what was is put back."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from exports import files

from pyarrowquant._core import placing
from pyarrowquant._core.placing import (
    contents,
    exchange,
    keeping_modes,
    place,
    remove,
    restore,
    sync,
)

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="permissions and links of POSIX")


@pytest.fixture(params=["by the system", "by renaming"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether there is a system call that exchanges, and one that refuses to replace."""
    if request.param == "by renaming":
        monkeypatch.setattr(placing, "_system_call", lambda _: None)
    return str(request.param)


def made(path: Path, kind: str, text: str) -> Path:
    if kind == "file":
        path.write_text(text)
    else:
        path.mkdir()
        (path / "a").write_text(text)
    return path


def texts(folder: Path) -> dict[str, bytes]:
    """What files have, by name."""
    return {name: data for name, data in files(folder).items() if data != b"folder"}


def failing(call: Callable[..., None], at: int, number: int) -> Callable[..., None]:
    """Fail with an error when it is called for the n-th time."""
    left = at

    def fails(*arguments: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(number, os.strerror(number))
        call(*arguments)

    return fails


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.usefixtures("how")
def test_exchange(tmp_path: Path, kind: str) -> None:
    new, old = made(tmp_path / "new", kind, "new"), made(tmp_path / "old", kind, "old")
    inside = "" if kind == "file" else "/a"
    exchange(new, old, tmp_path / "aside")
    assert texts(tmp_path) == {f"new{inside}": b"old", f"old{inside}": b"new"}


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EBUSY])
@pytest.mark.parametrize("at", [1, 2])
def test_an_exchange_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int, at: int
) -> None:
    monkeypatch.setattr(placing, "_system_call", lambda _: None)
    new, old = made(tmp_path / "new", kind, "new"), made(tmp_path / "old", kind, "old")
    before = files(tmp_path)
    monkeypatch.setattr(os, "rename", failing(os.rename, at, number))
    with pytest.raises(OSError, match=os.strerror(number)):
        exchange(new, old, tmp_path / "aside")
    assert files(tmp_path) == before


def test_what_was_taken_away_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "out"
    aside = made(tmp_path / ".out.replaced", "folder", "old")
    restore(target, aside)
    assert texts(tmp_path) == {"out/a": b"old"}
    made(aside, "folder", "older")
    with pytest.raises(FileExistsError, match=r"\.out\.replaced.*Rename or remove it"):
        restore(target, aside)
    assert texts(tmp_path) == {"out/a": b"old", ".out.replaced/a": b"older"}


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("taken", ["file", "folder", "link"])
@pytest.mark.parametrize("links", ["links", "no links"])
@pytest.mark.usefixtures("how")
def test_what_has_the_name_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, taken: str, links: str
) -> None:
    if links == "no links":  # as FAT answers
        monkeypatch.setattr(os, "link", failing(os.link, 1, errno.EPERM))
    new, target = made(tmp_path / "new", kind, "new"), tmp_path / "target"
    if taken == "link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        made(target, taken, "mine")
    before = files(tmp_path)
    with pytest.raises(FileExistsError):
        place(new, target)
    assert files(tmp_path) == before
    free = tmp_path / "free"
    place(new, free)
    assert free.exists()
    assert not new.exists()


@POSIX
@pytest.mark.usefixtures("how")
def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    new, target = made(tmp_path / "new", "folder", "new"), tmp_path / "target"
    target.mkdir()
    place(new, target)
    assert texts(tmp_path) == {"target/a": b"new"}


@POSIX
def test_modes_are_kept(tmp_path: Path) -> None:
    new, old = made(tmp_path / "new", "folder", "new"), made(tmp_path / "old", "folder", "old")
    (new / "more").write_text("more")
    before = (new / "more").stat().st_mode
    old.chmod(0o2750)
    (old / "a").chmod(0o640)
    with keeping_modes(new, old):
        exchange(new, old, tmp_path / "aside")
    new, old = old, new
    assert new.stat().st_mode & 0o7777 == 0o2750
    assert (new / "a").stat().st_mode & 0o777 == 0o640
    assert (new / "more").stat().st_mode == before


def test_contents_stay_the_same_when_renamed(tmp_path: Path) -> None:
    new = made(tmp_path / "new", "folder", "new")
    before = contents(new)
    new.rename(tmp_path / "newer")
    assert contents(tmp_path / "newer") == before
    (tmp_path / "newer" / "a").write_text("others")
    assert contents(tmp_path / "newer") != before
    assert contents(new) == []


class Disk(ModuleType):
    """The module fcntl of macOS: a call that has a disk write its cache, or does not know that."""

    F_FULLFSYNC = 51

    def __init__(self, number: int = 0) -> None:
        super().__init__("fcntl")
        self.number = number
        self.flushed: list[int] = []

    def fcntl(self, file: int, command: int) -> int:
        assert command == self.F_FULLFSYNC
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        self.flushed.append(file)
        return 0


@pytest.mark.parametrize("number", [0, errno.ENOTSUP, errno.EINVAL, errno.EIO])
def test_disks_of_macos_write_their_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    disk, synced = Disk(number), list[int]()
    monkeypatch.setitem(sys.modules, "fcntl", disk)
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(sys, "platform", "darwin")
    for path in (made(tmp_path / "a", "file", "a"), tmp_path):
        if number == errno.EIO:
            with pytest.raises(OSError, match=os.strerror(number)):
                sync(path)
        else:
            sync(path)
    assert (len(disk.flushed), len(synced)) == {0: (2, 0), errno.EIO: (0, 0)}.get(number, (0, 2))


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not synced there")
def test_folders_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
        monkeypatch.setattr(placing, "_flush", failing(placing._flush, 1, number))
        folder = tmp_path / str(number) / "a"
        folder.mkdir(parents=True)
        with pytest.warns(UserWarning, match="cannot tell when data is safe"):
            sync(folder)
    monkeypatch.setattr(placing, "_flush", failing(placing._flush, 1, errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync(tmp_path)


@POSIX
@pytest.mark.usefixtures("how")
def test_folders_that_may_not_be_written_in(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    new = made(tmp_path / "work" / "new", "folder", "new")
    target = made(tmp_path / "target", "folder", "old")
    made(target / "inner", "folder", "old")
    (target / "inner").chmod(0o500)
    target.chmod(0o555)
    with keeping_modes(new, target):
        exchange(new, target, tmp_path / "aside")
    assert target.stat().st_mode & 0o777 == 0o555
    assert (target / "a").read_text() == "new"
    remove(new)
    assert not new.exists()
