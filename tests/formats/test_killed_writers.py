"""What writers that were killed have left: the next one of the same output removes it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from child import run_child
from commands import run
from exports import files, quantized, weights

from pyarrowquant.formats import write_gguf, write_mlx

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and kills")

FITTING: dict[str, Any] = {"group_size": 32, "zero_point": "symmetric", "scale_dtype": "float16"}
MODES = {
    "gguf": ("fresh", "overwrite"),
    "onnx": ("fresh", "overwrite"),
    "parquet": ("fresh", "overwrite"),
    "compressed-tensors": ("fresh", "overwrite"),
    "mlx": ("fresh", "overwrite", "among others"),
    "recipe": ("fresh", "overwrite"),
}


@pytest.mark.parametrize("renames", ["system", "plain"])
@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes]
)
def test_killed_at_each_change(tmp_path: Path, kind: str, mode: str, renames: str) -> None:
    for name, bits in (("old", 8), ("new", 4)):
        table = quantized(weights(bits, 2, 64), bit_width=bits, **FITTING)
        with pa.ipc.new_file(tmp_path / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table)
    said = run_child(
        f"""
        import warnings
        from pathlib import Path
        from formats.killed_writers import survey

        warnings.simplefilter("ignore", DeprecationWarning)  # forks beside threads of numpy
        wrong = survey(Path({str(tmp_path)!r}), {kind!r}, {mode!r}, {renames!r})
        print("wrong:", *wrong, sep="\\n")
        """
    )
    assert said == "wrong:\n"


def left_by(folder: Path, name: str, *inside: str) -> Path:
    """Make what a dead writer leaves."""
    left = folder / f".{name}.0123abcd.tmp"
    left.mkdir()
    for file in ("lock", *inside):
        (left / file).touch()
    return left


def test_what_a_live_writer_has_stays(tmp_path: Path) -> None:
    first, second = (quantized(weights(seed, 2, 64), **FITTING) for seed in (1, 2))
    out = tmp_path / "out.gguf"
    write_gguf(first, tmp_path / "expected.gguf")
    left_by(tmp_path, "out.gguf", "0-out.gguf.tmp")

    def batches() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        (before,) = tmp_path.glob(".out.gguf.*")  # of this writer, which is not done yet
        write_gguf(second, out)
        assert list(tmp_path.glob(".out.gguf.*")) == [before]

    write_gguf(pa.RecordBatchReader.from_batches(first.schema, batches()), out, overwrite=True)
    assert out.read_bytes() == (tmp_path / "expected.gguf").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_what_may_be_of_others_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = quantized(weights(1, 2, 64), **FITTING)
    write_gguf(result, tmp_path / "expected.gguf")
    kept = [left_by(tmp_path, name) for name in ("other.gguf", "out", "out.gguf.more")]
    with_pipe = tmp_path / ".out.gguf.abcdabcd.tmp"
    with_pipe.mkdir()
    os.mkfifo(with_pipe / "lock")
    full = tmp_path / ".out.gguf.00000000.tmp"
    full.mkdir()
    (full / "mine").touch()
    linked = tmp_path / ".out.gguf.11111111.tmp"
    linked.symlink_to(kept[0])
    write_gguf(result, tmp_path / "out.gguf")
    kept += [with_pipe, full, linked]
    assert {path for path in tmp_path.iterdir() if path.name[0] == "."} == set(kept)
    assert (full / "mine").exists()

    mine = left_by(tmp_path, "out.gguf")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        write_gguf(result, tmp_path / "out.gguf", overwrite=True)
    assert mine.exists()
    write_gguf(result, tmp_path / "out.gguf", overwrite=True)
    assert not mine.exists()


def test_without_locks_what_is_left_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def fails(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fails)
    left = left_by(tmp_path, "out.gguf", "0-out.gguf.tmp")
    write_gguf(quantized(weights(1, 2, 64), **FITTING), tmp_path / "out.gguf")
    assert {path.name for path in tmp_path.iterdir()} == {left.name, "out.gguf"}


def test_a_lock_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_gguf(quantized(weights(1, 2, 64), **FITTING), tmp_path / "out.gguf")
    assert files(tmp_path) == {}


@pytest.mark.parametrize("command", ["quantize", "recipe", "report"])
def test_commands_remove_what_is_left(tmp_path: Path, model_file: Path, command: str) -> None:
    result = tmp_path / "result.parquet"
    assert run("quantize", model_file, result).exit_code == 0
    name, arguments = {
        "quantize": ("out.parquet", ["quantize", model_file]),
        "recipe": ("out.json", ["recipe", "fit", model_file, "--bits-per-weight", "6"]),
        "report": ("out.html", ["report", result, "--html"]),
    }[command]
    left = left_by(tmp_path, name, f"0-{name}.tmp")
    done = run(*arguments, tmp_path / name)
    assert done.exit_code == 0, done.output
    assert not left.exists()


def test_a_folder_that_a_dead_writer_was_writing_in_is_replaced(tmp_path: Path) -> None:
    model, out = tmp_path / "model.npz", tmp_path / "out"
    np.savez(model, **{"a.weight": weights(1, 2, 64)})
    assert run("quantize", model, out, "--to", "mlx").exit_code == 0
    before = files(out)
    left_by(out, "config.json", "0-model.safetensors.tmp")
    arguments = ("quantize", model, out, "--to", "mlx", "--overwrite")
    assert run(*arguments, "--dry-run").exit_code == 0
    assert run(*arguments).exit_code == 0
    assert files(out) == before


@pytest.mark.parametrize("how", ["only these", "others"])
def test_mlx_folders(tmp_path: Path, how: str) -> None:
    """A folder that has nothing else is replaced as a whole, its permissions and links stay."""
    first, second = (quantized(weights(seed, 2, 64), **FITTING) for seed in (1, 2))
    out = tmp_path / "out"
    write_mlx(first, out)
    out.chmod(0o750)
    if how == "others":
        (out / "tokenizer.json").write_text("{}")
    link = tmp_path / "link"
    link.symlink_to(out)
    before = out.stat().st_ino
    write_mlx(second, link, overwrite=True)
    assert (out.stat().st_ino == before) == (how == "others")
    assert out.stat().st_mode & 0o777 == 0o750
    assert link.is_symlink()
    expected = tmp_path / "expected"
    write_mlx(second, expected)
    assert files(expected).items() <= files(out).items()
    assert (out / "tokenizer.json").exists() == (how == "others")


@pytest.mark.parametrize("begin", ["new", "only these"])
def test_files_that_appear_in_mlx_folders_meanwhile_stay(tmp_path: Path, begin: str) -> None:
    result = quantized(weights(1, 2, 64), **FITTING)
    out = tmp_path / "out"
    if begin != "new":
        write_mlx(result, out)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from result.to_batches()
        out.mkdir(exist_ok=True)
        (out / "tokenizer.json").write_text("{}")

    stream = pa.RecordBatchReader.from_batches(result.schema, batches())
    with pytest.raises(FileExistsError, match="has got files meanwhile"):
        write_mlx(stream, out, overwrite=True)
    assert (out / "tokenizer.json").exists()
    assert not list(tmp_path.glob(".*"))
    write_mlx(result, out, overwrite=True)
    assert len(list(out.iterdir())) == 3


def test_mlx_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = quantized(weights(1, 2, 64), **FITTING)
    monkeypatch.chdir(tmp_path)
    write_mlx(result, ".")
    before = os.stat(".").st_ino
    write_mlx(result, ".", overwrite=True)
    assert os.stat(tmp_path).st_ino == before
    assert set(os.listdir(".")) == {"model.safetensors", "config.json"}


def test_mlx_files_that_are_links(tmp_path: Path) -> None:
    result = quantized(weights(1, 2, 64), **FITTING)
    write_mlx(result, tmp_path / "store")
    out = tmp_path / "out"
    out.mkdir()
    (out / "tokenizer.json").touch()
    (out / "model.safetensors").symlink_to(tmp_path / "store" / "model.safetensors")
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"model.safetensors' is a link into another folder"):
        write_mlx(result, out, overwrite=True)
    assert files(tmp_path) == before
