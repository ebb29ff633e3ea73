"""Destinations that cannot be written as usual, and file systems that lack something."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import run
from exports import files
from safetensors.numpy import save_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="mounts, links and locks of POSIX")


def raising(number: int) -> Callable[..., None]:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fails


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    weights = np.random.default_rng(0).standard_normal((64, 128), np.float32)
    save_file({"layers.0.up.weight": weights}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a mount point of Linux")
@pytest.mark.parametrize("to", ["mlx", "compressed-tensors", "parquet"])
def test_mount_points_are_refused_before_any_work(model: Path, to: str) -> None:
    result = run("quantize", model, "/proc", "--to", to, "--overwrite")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: '/proc' is a mount point")
    assert "such as '/proc/model'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--to", "mlx", "--overwrite"]])
def test_links_in_a_circle(model: Path, tmp_path: Path, options: list[str]) -> None:
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    one.symlink_to(other)
    other.symlink_to(one)
    result = run("quantize", model, one, *options)
    assert result.exit_code == 1
    assert "leads in a circle" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert one.is_symlink()
    assert other.is_symlink()


@pytest.mark.parametrize(("name", "to"), [("out.parquet", []), ("out", ["--to", "mlx"])])
def test_overwriting_keeps_modes(model: Path, tmp_path: Path, name: str, to: list[str]) -> None:
    out = tmp_path / name
    assert run("quantize", model, out, *to).exit_code == 0
    modes = {path: 0o750 if path.is_dir() else 0o640 for path in [out, *out.rglob("*")]}
    for path, mode in modes.items():
        path.chmod(mode)
    assert run("quantize", model, out, *to, "--bits", 8, "--overwrite").exit_code == 0
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in modes} == modes


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL])
def test_without_locks_it_goes_on_and_says_so_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", raising(number))
    folder = tmp_path / "nfs"
    folder.mkdir()
    result = run("quantize", model, folder / "out.parquet")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("has no locks") == 1
    assert f"'{folder}'" in result.stderr
    assert list(files(folder)) == ["out.parquet"]


def test_a_lock_that_fails_otherwise_is_an_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", raising(errno.EIO))
    folder = tmp_path / "broken"
    folder.mkdir()
    result = run("quantize", model, folder / "out.parquet")
    assert result.exit_code == 1
    assert os.strerror(errno.EIO) in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (folder / "out.parquet").exists()
    monkeypatch.undo()
    assert run("quantize", model, folder / "out.parquet").exit_code == 0
    assert list(files(folder)) == ["out.parquet"]


def test_a_folder_that_cannot_be_synced_is_said_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def refuses_folders(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raising(errno.EINVAL)()
        real(number)

    monkeypatch.setattr(os, "fsync", refuses_folders)
    folder = tmp_path / "fuse"
    folder.mkdir()
    result = run("quantize", model, folder / "out.parquet")
    assert result.exit_code == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if "loss of power" in line]
    assert said
    assert len(said) == len(set(said))
    assert all(line.startswith("The file system of ") for line in said)
    assert not any(line in result.stderr for line in ("UserWarning", "_placing.py"))
    assert list(files(folder)) == ["out.parquet"]
