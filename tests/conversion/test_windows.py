"""Runs and writers where the rules of Windows' file systems hold, and POSIX is not there."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import windows
from child import ROOT
from commands import run
from conftest import plain
from exports import files, weights
from formats.killed_writers import writers

from conversion.killing import FORMATS
from pyarrowquant import Recipe, dequantize_batch_arrow, quantize_batch_arrow, read_weights
from pyarrowquant._core.locks import lock
from pyarrowquant._core.placing import place, sync

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays Windows on Linux")


def quantized(model: Path, out: Path, *more: str) -> dict[str, bytes]:
    result = run("quantize", model, out, *more)
    assert result.exit_code == 0, result.output
    return files(out.parent)


@pytest.mark.parametrize("kind", FORMATS)
def test_runs_write_the_same_files(
    model: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, options = FORMATS[kind]
    for folder in ("posix", "windows"):
        (tmp_path / folder).mkdir()
    wanted = quantized(model, tmp_path / "posix" / name, *options)
    windows.play(monkeypatch)
    assert quantized(model, tmp_path / "windows" / name, *options) == wanted
    again = quantized(model, tmp_path / "windows" / name, *options, "--overwrite")
    assert again == wanted


@pytest.mark.parametrize("kind", FORMATS)
def test_runs_that_fail_anywhere_are_continued(
    model: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, options = FORMATS[kind]
    (tmp_path / "whole").mkdir()
    wanted = quantized(model, tmp_path / "whole" / name, *options)
    windows.play(monkeypatch)
    for count in range(1, 200, 7):
        out = tmp_path / f"cut-{count}"
        out.mkdir()
        with monkeypatch.context() as failing:
            failed = fail_at(failing, count)
            code = run("quantize", model, out / name, *options).exit_code
        gc.collect()  # what the error refers to is open
        if not failed:
            assert count > 7
            break
        if code != 0:
            quantized(model, out / name, *options, "--resume")
        assert files(out) == wanted, count


def fail_at(monkeypatch: pytest.MonkeyPatch, count: int) -> list[str]:
    """Let the n-th call that makes something durable fail; what it gives is then not empty."""
    failed: list[str] = []
    left = count

    def failing(name: str) -> None:
        original = getattr(os, name)

        def call(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                failed.append(name)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return original(*arguments)

        monkeypatch.setattr(os, name, call)

    for name in ("rename", "replace", "fsync"):
        failing(name)
    return failed


@pytest.mark.parametrize("kind", ["gguf", "onnx", "parquet", "compressed-tensors", "mlx"])
def test_writers_replace_what_is_there(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, write = writers(tmp_path)[kind]
    results = [
        quantize_batch_arrow(
            plain(["a.weight"], [weights(seed, 2, 64)]), group_size=32, scale_dtype="float16"
        )
        for seed in (1, 2)
    ]
    (tmp_path / "posix").mkdir()
    write(results[1], tmp_path / "posix" / name)
    windows.play(monkeypatch)
    (tmp_path / "windows").mkdir()
    for result in results:
        write(result, tmp_path / "windows" / name)
    assert files(tmp_path / "windows") == files(tmp_path / "posix")


def test_commands_read_what_runs_write(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows.play(monkeypatch)
    quantized(model, tmp_path / "out.parquet")
    commands: list[list[Any]] = [
        ["inspect", tmp_path / "out.parquet"],
        ["compare", model, tmp_path / "out.parquet", "--allow-missing"],
        ["dequantize", tmp_path / "out.parquet", tmp_path / "back.safetensors"],
        ["report", tmp_path / "out.parquet", "--html", tmp_path / "page.html"],
        ["recipe", "fit", model, tmp_path / "fit.yaml", "--bits-per-weight", 4.5],
    ]
    for command in commands:
        result = run(*command)
        assert result.exit_code == 0, (command, result.output)
    Recipe.preset("text").save(tmp_path / "text.json")
    for name in ("page.html", "fit.yaml", "text.json"):
        assert b"\r" not in (tmp_path / name).read_bytes()


def test_one_run_at_a_time(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows.play(monkeypatch)
    partial = tmp_path / ".out.parquet.partial"
    partial.mkdir()
    with (partial / "lock").open("ab") as held:
        assert lock(held) is True
        result = run("quantize", model, tmp_path / "out.parquet")
        assert result.exit_code == 1
        assert "Another run is writing 'out.parquet'" in result.stderr
    quantized(model, tmp_path / "out.parquet")


def test_folders_are_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows.play(monkeypatch)
    file = tmp_path / "a"
    file.write_bytes(b"a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sync(file)
        sync(tmp_path)


def test_names_that_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows.play(monkeypatch)
    for name in ("new", "empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "new" / "a").touch()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(FileExistsError):
        place(tmp_path / "new", tmp_path / "full")
    place(tmp_path / "new", tmp_path / "empty")
    assert files(tmp_path) == {"empty": b"folder", "empty/a": b"", "full": b"folder", "full/a": b""}


def test_weights_are_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows.play(monkeypatch)
    table = quantize_batch_arrow(read_weights(model).read_all(), metrics=True)
    assert dequantize_batch_arrow(table).num_rows == table.num_rows


@pytest.mark.parametrize(
    ("platform", "suffix"), [("linux", ".so"), ("darwin", ".dylib"), ("win32", ".dll")]
)
def test_the_library_has_the_name_of_its_system(platform: str, suffix: str) -> None:
    program = f"""
        import os, numpy, pyarrow
        if {platform!r} == "win32":
            del os.register_at_fork
        sys.platform = {platform!r}
        import pyarrowquant._core.library as library
        print(library.LIBRARY.name)
    """
    command = [sys.executable, "-c", "import sys\n" + textwrap.dedent(program)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"_pyarrowquant{suffix}"
