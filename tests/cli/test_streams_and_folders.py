"""Standard streams that are closed or full, and a current folder that was removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from child import HANG, ROOT
from commands import succeeded

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shells and devices of POSIX")

PROGRAM = f"PYTHONPATH='{ROOT}' '{sys.executable}' -P -m pyarrowquant"
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")


def shell(command: str, folder: Path, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        capture_output=True,
        encoding=encoding,
        check=False,
        timeout=HANG,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    np.savez(path, **{"a.weight": np.ones((4, 64), np.float32)})
    succeeded("quantize", path, tmp_path / "a.parquet")
    return path


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize("to", ["parquet", "gguf"])
def test_closed_streams(source: Path, closed: str, to: str) -> None:
    folder = source.parent
    said = shell(f"{PROGRAM} quantize a.npz expected.{to}", folder)
    assert said.returncode == 0, said.stderr
    done = shell(f"{PROGRAM} quantize a.npz out.{to} {closed}", folder)
    assert done.returncode == 0, done.stderr
    expected = (folder / f"expected.{to}").read_bytes()
    assert (folder / f"out.{to}").read_bytes() == expected
    failed = shell(f"{PROGRAM} quantize none.npz out.{to} {closed}", folder)
    assert failed.returncode == 1
    assert bool(failed.stderr) == ("2>" not in closed)
    assert (folder / f"out.{to}").read_bytes() == expected


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437"])
def test_names_that_the_output_has_no_characters_for(tmp_path: Path, encoding: str) -> None:
    names = ["\u5c42.weight", "\U0001f600.weight", "\xe9.weight"]
    np.savez(tmp_path / "a.npz", **{name: np.ones((4, 64), np.float32) for name in names})
    wanted = [name.encode(encoding, "backslashreplace").decode(encoding) for name in names]
    for command in ("inspect a.npz", "quantize a.npz a.parquet --dry-run"):
        done = shell(f"PYTHONIOENCODING={encoding} {PROGRAM} {command} | cat", tmp_path, encoding)
        assert done.returncode == 0, done.stderr
        assert all(name in done.stdout for name in wanted), done.stdout


PRINTING = (
    "--help",
    "--version",
    "quantize --help",
    "recipe --help",
    "recipe show text",
    "inspect a.npz",
    "inspect a.npz --json",
    "quantize a.npz b.parquet",
    "quantize a.npz b.parquet --dry-run",
    "compare a.npz a.parquet",
    "dequantize a.parquet b.arrow",
    "recipe fit a.npz b.json --bits-per-weight 4",
)


@FULL
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", PRINTING)
def test_a_full_device(source: Path, arguments: str, unbuffered: str) -> None:
    program = f"PYTHONUNBUFFERED={unbuffered} {PROGRAM}"
    done = shell(f"{program} {arguments} > /dev/full", source.parent)
    assert done.returncode == 1
    assert done.stderr == "Error: Standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("arguments", PRINTING)
def test_a_closed_pipe(source: Path, arguments: str) -> None:
    done = shell(f"{PROGRAM} {arguments} | head -c 0; exit ${{PIPESTATUS[0]}}", source.parent)
    assert done.returncode in (0, 1)  # as it was faster than head, or not
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    "arguments",
    [
        "quantize a.npz b.parquet",
        "quantize a.npz b --to mlx",
        "quantize a.npz b.parquet --dry-run",
        "inspect a.npz",
        "compare a.npz b.parquet",
        "dequantize a.parquet b.npz --to arrow",
        "report a.parquet --html b.html",
        "recipe fit a.npz b.json --bits-per-weight 4",
        "recipe show a.json",
    ],
)
def test_a_current_folder_that_was_removed(source: Path, arguments: str) -> None:
    gone = f"mkdir gone; cd gone; rmdir ../gone; {PROGRAM}"
    done = shell(f"{gone} {arguments}", source.parent)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("Error: The current folder was removed. Change to another one")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("to", ["parquet", "gguf", "mlx"])
def test_whole_paths_do_not_need_it(source: Path, to: str) -> None:
    out = source.parent / f"out.{to}"
    gone = f"mkdir gone; cd gone; rmdir ../gone; {PROGRAM}"
    done = shell(f"{gone} quantize '{source}' '{out}' --to {to}", source.parent)
    assert (done.returncode, out.exists()) == (0, True), done.stderr
    if to == "parquet":
        done = shell(f"{gone} compare '{source}' '{out}'", source.parent)
        assert done.returncode == 0, done.stderr
