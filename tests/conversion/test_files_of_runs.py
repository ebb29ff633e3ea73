"""What is no file, where a run has its own: a pipe would be waited for, a link followed."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(path.parent)  # names of sockets are short
        listening.bind(path.name)


MADE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "socket": listen,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path: path.symlink_to(path.parent / "nothing"),
}


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("name", ["lock", "complete.json", "run.json"])
@pytest.mark.parametrize("resume", [True, False])
def test_they_are_named(
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    name: str,
    resume: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    partial = tmp_path / ".out.parquet.partial"
    partial.mkdir()
    if name != "lock":
        (partial / "lock").touch()
    MADE[kind](partial / name)
    before = set(os.listdir(partial))
    done = run("quantize", model, tmp_path / "out.parquet", *["--resume"] * resume)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert f"Error: '{partial / name}' is a link, folder, device, pipe or socket" in done.stderr
    assert set(os.listdir(partial)) == before
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("name", ["next.tmp", "recipe.json", "output", "00000001.arrow"])
def test_what_is_written_anew(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    partial = tmp_path / ".out.parquet.partial"
    partial.mkdir()
    (partial / "lock").touch()
    MADE[kind](partial / name)
    assert run("quantize", model, tmp_path / "out.parquet").exit_code == 0
    assert set(os.listdir(tmp_path)) == {"model", "out.parquet"}
