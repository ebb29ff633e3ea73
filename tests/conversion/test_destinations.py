"""Destinations that cannot be written as usual, and file systems that lack something."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import failed, run
from exports import files
from safetensors.numpy import save_file

from pyarrowquant.recipes.recipe import Recipe

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
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a mount point of Linux")
@pytest.mark.parametrize("to", ["mlx", "compressed-tensors", "bitsandbytes", "parquet"])
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
    assert not any(line in result.stderr for line in ("UserWarning", "placing.py"))
    assert list(files(folder)) == ["out.parquet"]


@pytest.mark.parametrize("name", ["out.parquet", "out.gguf", "out.onnx", "out.arrow"])
@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--overwrite", "--dry-run"]])
def test_pipes_and_devices_are_not_replaced(
    model: Path, tmp_path: Path, name: str, options: list[str]
) -> None:
    out = tmp_path / name
    os.mkfifo(out)
    link = tmp_path / f"link-{name}"
    link.symlink_to(out)
    for path in (out, link):
        result = run("quantize", model, path, *options)
        assert result.exit_code == 1
        assert "is a device, pipe or socket" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert stat.S_ISFIFO(out.stat().st_mode)


def test_results_are_not_written_to_pipes(model: Path, tmp_path: Path) -> None:
    assert run("quantize", model, tmp_path / "q.parquet").exit_code == 0
    pipe = tmp_path / "pipe.arrow"
    os.mkfifo(pipe)
    for arguments in (
        ["dequantize", tmp_path / "q.parquet", pipe],
        ["report", tmp_path / "q.parquet", "--html", pipe],
    ):
        result = run(*arguments, "--overwrite")
        assert result.exit_code == 1
        assert f"'{pipe}' is a device, pipe or socket" in result.stderr
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["r.json", "r.yaml"])
def test_pipes_are_not_read(model: Path, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    os.mkfifo(tmp_path / "m.parquet")
    for arguments in (
        ["quantize", model, tmp_path / "out.parquet", "--recipe", tmp_path / name],
        ["recipe", "show", tmp_path / name],
        ["quantize", tmp_path / "m.parquet", tmp_path / "out.parquet"],
        ["dequantize", tmp_path / "m.parquet", tmp_path / "out.arrow"],
        ["report", tmp_path / "m.parquet", "--html", tmp_path / "out.html"],
        ["compare", model, tmp_path / "m.parquet"],
        ["inspect", tmp_path / "m.parquet"],
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert str(tmp_path) in result.stderr
        assert "Error: " in result.stderr


# Root may write everywhere, without what these take away.
UNPRIVILEGED = (
    ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]
    if hasattr(os, "geteuid") and os.geteuid() == 0
    else []
)


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities of Linux")
@pytest.mark.parametrize("to", ["mlx", "compressed-tensors", "parquet"])
def test_a_folder_that_may_not_be_written_in_is_replaced(
    model: Path, tmp_path: Path, to: str
) -> None:
    out = tmp_path / "out"
    assert run("quantize", model, out, "--to", to).exit_code == 0
    out.chmod(0o555)
    before = set(files(out))
    command = [sys.executable, "-m", "pyarrowquant", "quantize", model, out, "--to", to]
    for bits in (8, 4):
        done = subprocess.run(
            [*UNPRIVILEGED, *command, "--bits", str(bits), "--overwrite"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert stat.S_IMODE(out.stat().st_mode) == 0o555
        assert set(files(out)) == before
        assert {path.name for path in tmp_path.iterdir()} == {"out", "source"}
    out.chmod(0o755)


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--dry-run"], ["--resume"]])
def test_what_only_has_a_like_name_stays(model: Path, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / ".out.replaced").mkdir()
    (tmp_path / ".out.replaced" / "mine").write_text("mine")
    (tmp_path / ".out.01234567.replaced").write_text("mine, too")
    before = files(tmp_path)
    result = run("quantize", model, tmp_path / "out", "--to", "mlx", *options)
    assert result.exit_code == 0, result.stderr
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "generation_config.json", "merges.txt", "tokenizer.model"]
)
def test_files_of_the_model_are_not_replaced(model: Path, tmp_path: Path, name: str) -> None:
    (model / name).write_text("of the model")
    for source in (model, model / "model.safetensors"):
        result = run("quantize", source, model / name, "--to", "gguf", "--overwrite")
        assert result.exit_code == 1
        assert f"'{model / name}' lies in the folder of the source model" in result.stderr
    assert (model / name).read_text() == "of the model"
    (tmp_path / "link").symlink_to(model)
    result = run("quantize", model, tmp_path / "link" / name, "--to", "gguf", "--overwrite")
    assert result.exit_code == 1
    assert (model / name).read_text() == "of the model"


def test_results_in_the_folder_of_the_model_are_replaced(model: Path) -> None:
    for options in ([], ["--overwrite"]):
        assert run("quantize", model, model / "q.parquet", *options).exit_code == 0


def test_the_recipe_is_not_replaced(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    Recipe.preset("text").save(path)
    before = path.read_bytes()
    options = ["--recipe", path, "--overwrite"]
    for arguments in (
        ["quantize", model, path, "--to", "gguf", *options],
        ["recipe", "fit", model, path, "--bits-per-weight", 4.5, *options],
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "is the source, or a file of it" in result.stderr
        assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are of Linux")
def test_names_that_are_not_utf8(model: Path, tmp_path: Path) -> None:
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/m\xff.safetensors")
    shutil.copyfile(model / "model.safetensors", bad)
    out = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.parquet")
    for source, destination in ((bad, tmp_path / "out.parquet"), (model, out)):
        result = run("quantize", source, destination)
        assert result.exit_code == 1
        assert "udcff" in result.stderr
        assert "the name is not UTF-8" in result.stderr


@pytest.mark.parametrize("name", [".git", "notes"])
@pytest.mark.parametrize("to", ["mlx", "compressed-tensors", "bitsandbytes", "parquet"])
def test_folders_in_a_folder_are_not_lost(model: Path, tmp_path: Path, to: str, name: str) -> None:
    out = tmp_path / "out"
    for folder in (model, out):
        if folder == out:
            assert run("quantize", model, out, "--to", to).exit_code == 0
        (folder / name).mkdir(exist_ok=True)
    (out / name / "mine").write_text("mine")
    result = run("quantize", model, out, "--to", to, "--overwrite")
    assert result.exit_code == 1
    assert f"'{out}' has the folder '{name}', which would be lost" in result.stderr
    assert (out / name / "mine").read_text() == "mine"


def test_a_git_worktree_is_not_replaced(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("quantize", model, out, "--to", "mlx").exit_code == 0
    (out / ".git").write_text("gitdir: elsewhere")
    result = run("quantize", model, out, "--to", "mlx", "--overwrite")
    assert result.exit_code == 1
    assert (out / ".git").read_text() == "gitdir: elsewhere"


@pytest.mark.skipif(sys.platform != "linux", reason="mountinfo is of Linux")
def test_mount_points_in_a_folder_are_seen(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert run("quantize", model, out, "--to", "mlx").exit_code == 0
    line = f"1 2 3:4 / {out / 'config.json'} rw - ext4 none rw\n".encode()
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: line if str(path).startswith("/proc") else read(path)
    )
    result = run("quantize", model, out, "--to", "mlx", "--overwrite")
    assert result.exit_code == 1
    assert f"has the mount point '{out / 'config.json'}' in it" in result.stderr


def test_the_root_folder_is_refused(model: Path) -> None:
    result = run("quantize", model, "/", "--to", "parquet")
    assert result.exit_code in (1, 2)
    assert "'/'" in result.stderr


def test_an_onnx_model_is_not_written_through_a_link_into_another_folder(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    link = tmp_path / "link.onnx"
    link.symlink_to(tmp_path / "other" / "real.onnx")
    result = run("quantize", model, link)
    assert result.exit_code == 1
    assert f"Give '{tmp_path / 'other' / 'real.onnx'}'" in result.stderr


def test_data_of_an_onnx_model_has_its_modes(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    command = ("quantize", model, out, "--tensors-only")
    assert run(*command).exit_code == 0
    out.chmod(0o4600)
    assert run(*command, "--bits", 8, "--overwrite").exit_code == 0
    for path in tmp_path.glob("out.onnx*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away"
)
def test_overwriting_keeps_the_owner(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    assert run("quantize", model, out).exit_code == 0
    os.chown(out, 1234, 1235)
    assert run("quantize", model, out, "--overwrite").exit_code == 0
    assert (out.stat().st_uid, out.stat().st_gid) == (1234, 1235)


@pytest.mark.parametrize("to", ["mlx", "compressed-tensors", "bitsandbytes"])
def test_files_of_the_model_that_are_missing_are_said(model: Path, tmp_path: Path, to: str) -> None:
    (model / "tokenizer.json").symlink_to(tmp_path / "pruned")
    result = run("quantize", model, tmp_path / "out", "--to", to)
    assert result.exit_code == 1
    assert f"'{model / 'tokenizer.json'}' is a link to '{tmp_path / 'pruned'}'" in result.stderr


@pytest.mark.parametrize("name", ["out.gguf", "out.parquet", "out"])
def test_a_full_disk_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = os.fsync

    def full(number: int) -> None:
        if stat.S_ISREG(os.fstat(number).st_mode):
            raising(errno.ENOSPC)()
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    to = ["--tensors-only"] if "." in name else ["--to", "mlx"]
    result = run("quantize", model, tmp_path / name, *to)
    assert result.exit_code == 1
    assert os.strerror(errno.ENOSPC) in result.stderr
    assert str(tmp_path) in result.stderr


@pytest.mark.parametrize("name", ["out", "out.parquet"])
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_places_that_are_none_name_a_way_out(tmp_path: Path, name: str, options: list[str]) -> None:
    np.savez(tmp_path / "m.npz", **{"up.weight": np.ones((64, 64), np.float32)})
    (tmp_path / "ein Gerät").write_text("")
    to = ["--to", "parquet" if "." in name else "mlx", *options]

    def said(place: Path, code: int) -> str:
        return failed("quantize", tmp_path / "m.npz", place / name, *to, code=code)

    file, none = tmp_path / "ein Gerät", tmp_path / "nicht da"
    assert f"Error: '{file}' is a file; give a name in a folder\n" in said(file, 2)
    assert f"Error: Folder '{none}' does not exist. Make it first\n" in said(none, 2)
