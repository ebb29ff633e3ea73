"""Runs that were killed, and what --resume makes of them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run
from exports import files
from safetensors.numpy import save_file

from conversion.killing import FORMATS, SHARDS, killed_at


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("kind", FORMATS)
def test_killed_anywhere_and_continued(model: Path, tmp_path: Path, kind: str) -> None:
    name, options = FORMATS[kind]
    whole, out = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    out.mkdir()
    before = files(model)
    result = run("quantize", model, whole / name, *options)
    assert result.exit_code == 0, result.output
    step = 7 if kind in ("parquet", "mlx") else 13  # tests/faults tries more
    for count in range(1, 200, step):
        if not killed_at(count, "quantize", model, out / name, *options):
            assert count > 10
            break
        result = run("quantize", model, out / name, *options, "--resume")
        found = files(out)
        if "exists" in result.stderr:  # nothing was left but to remove an empty folder
            assert count > 10
        else:
            assert result.exit_code == 0, (count, result.output)
        assert found == files(whole), count
        shutil.rmtree(out)
        out.mkdir()
    assert files(out) == files(whole)
    assert files(model) == before


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
class TestInterrupted:
    def test_what_is_done_is_not_done_again(
        self, model: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:

        import pyarrowquant.conversion.quantizing as quantizing

        batches = []
        original = quantizing.stream_within

        def counted(widths: Any, source: Any, *rest: Any, **options: Any) -> Any:
            def watched() -> Any:
                for batch in source:
                    batches.append(batch.num_rows)
                    yield batch

            reader = type(source).from_batches(source.schema, watched())
            return original(widths, reader, *rest, **options)

        monkeypatch.setattr(quantizing, "stream_within", counted)
        result = run("quantize", model, interrupted, "--resume", "--json")
        assert result.exit_code == 0, result.output
        assert len(batches) == SHARDS - 2
        assert json.loads(result.stdout)["layers"] == 2 * SHARDS

    def test_a_run_that_is_refused_leaves_what_is_there(self, model: Path, tmp_path: Path) -> None:
        """Also where no batch was done yet: the right settings go on from it."""
        out = tmp_path / "out.parquet"
        assert killed_at(4, "quantize", model, out)
        partial = tmp_path / ".out.parquet.partial"
        before = files(partial)
        assert "run.json" in before
        assert not [name for name in before if name.endswith(".arrow")]
        result = run("quantize", model, out, "--bits", 3, "--resume")
        assert result.exit_code == 1
        assert "cannot be continued" in result.stderr
        assert files(partial) == before

    def test_without_resume_it_begins_anew(self, model: Path, interrupted: Path) -> None:
        result = run("quantize", model, interrupted, "--bits", 3)
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in interrupted.parent.iterdir()) == [
            "model",
            "out.parquet",
        ]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("touched", "the source has changed: 'model-00003-of-00004.safetensors' had"),
            ("replaced", "'model-00003-of-00004.safetensors' is another file, of the same size"),
            ("bits", "bit_width was 4, now is 3"),
            ("memory", "the bound by --max-memory (bytes) was"),
            ("recipe", "the recipe differs"),
        ],
    )
    def test_other_runs_are_refused(
        self, model: Path, interrupted: Path, change: str, said: str
    ) -> None:
        options = {"bits": ["--bits", "3"], "memory": ["--max-memory", "300M"]}.get(change, [])
        if change == "recipe":
            options = ["--recipe", "text"]
        if change == "touched":
            shard = model / "model-00003-of-00004.safetensors"
            content = bytearray(shard.read_bytes())
            content[-1] ^= 1
            shard.write_bytes(content)
        if change == "replaced":  # as cp -p and rsync -t do
            shard = model / "model-00003-of-00004.safetensors"
            other, times = model / "other", shard.stat()
            other.write_bytes(shard.read_bytes()[:-1] + b"\0")
            os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
            other.rename(shard)
        result = run("quantize", model, interrupted, "--resume", *options)
        assert result.exit_code == 1
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not interrupted.exists()
        if change not in ("touched", "replaced"):  # the refusal took nothing away
            assert run("quantize", model, interrupted, "--resume").exit_code == 0

    def test_one_run_at_a_time(self, model: Path, interrupted: Path) -> None:
        import fcntl

        with (interrupted.parent / ".out.parquet.partial" / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = run("quantize", model, interrupted, "--resume")
            assert result.exit_code == 1
            assert "Another run is writing 'out.parquet'" in result.stderr


def test_resume_without_anything_to_resume(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    assert run("quantize", model, out, "--resume").exit_code == 0
    result = run("quantize", model, out, "--resume")
    assert result.exit_code == 1
    assert "exists" in result.stderr


def test_layers_left_out_before_the_kill_are_reported(model: Path, tmp_path: Path) -> None:
    shard = model / f"model-00001-of-{SHARDS:05d}.safetensors"
    tensors = {f"layers.0.{n}": np.full((2, 8), 1, np.float32) for n in ("up.weight", "norm")}
    tensors["layers.0.down.weight"] = np.full((2, 8), np.nan, np.float32)
    save_file(tensors, shard)
    out = tmp_path / "out.parquet"
    assert killed_at(9, "quantize", model, out, "--continue-on-error")
    assert (tmp_path / ".out.parquet.partial" / "00000001.arrow").exists()
    result = run("quantize", model, out, "--continue-on-error", "--resume", "--json")
    assert result.exit_code == 0, result.output
    (said,) = json.loads(result.stdout)["skipped"]
    assert "layers.0.down.weight" in said


def test_errors_after_the_first_part_keep_it(model: Path, tmp_path: Path) -> None:
    shard = model / f"model-00003-of-{SHARDS:05d}.safetensors"
    tensors = {
        f"layers.2.{name}": np.ones((2, 8), np.float32) for name in ("up.weight", "down.weight")
    }
    tensors["layers.2.norm"] = np.full((2, 8), np.inf, np.float32)
    save_file(tensors, shard)
    out = tmp_path / "out.parquet"
    result = run("quantize", model, out, "--recipe", "all")
    assert result.exit_code == 1
    assert "'layers.2.norm' contains NaN or Inf" in result.stderr
    assert "--resume continues it" in result.stderr
    result = run("quantize", model, out, "--resume", "--continue-on-error", "--recipe", "all")
    assert result.exit_code == 0, result.output


def test_a_refusal_takes_nothing_from_a_run_that_was_killed_in_its_clean_up(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrowquant.conversion.partial.work as work

    out = tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(
            work, "remove_folder", lambda folder, _: work.remove_all_but(folder, work.COMPLETE)
        )
        first = run("quantize", model, out, "--json")
    assert first.exit_code == 0, first.output
    assert [file.name for file in (tmp_path / ".out.parquet.partial").iterdir()] == [work.COMPLETE]
    assert "cannot be continued" in run("quantize", model, out, "--resume", "--bits", 3).stderr
    again = run("quantize", model, out, "--resume", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["layers"] == json.loads(first.stdout)["layers"] == 2 * SHARDS
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(sys.platform != "linux", reason="a folder where nobody may write")
def test_a_folder_that_cannot_be_written(model: Path) -> None:
    result = run("quantize", model, "/sys/kernel/out.parquet")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "out.parquet" in result.stderr


@pytest.mark.parametrize("text", [b"", b"{}", b"garbage", b"[]", b"\xff\xfe"])
def test_damaged_notes_do_not_stand_in_the_way(model: Path, tmp_path: Path, text: bytes) -> None:
    partial = tmp_path / ".out.parquet.partial"
    partial.mkdir()
    (partial / "lock").touch()
    (partial / "complete.json").write_bytes(text)
    (partial / "run.json").write_text("{}")
    result = run("quantize", model, tmp_path / "out.parquet", "--resume")
    assert result.exit_code == 1
    assert "of an earlier run is damaged" in result.stderr
    result = run("quantize", model, tmp_path / "out.parquet")
    assert result.exit_code == 0, result.stderr
    assert not partial.exists()


@pytest.mark.parametrize("options", [["--resume"], []])
def test_permissions_of_a_folder_after_a_kill(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """Killed where the new folder has its place, and may still be written in."""
    out = tmp_path / "out"
    arguments = ["quantize", model, out, "--to", "mlx", "--overwrite"]
    assert run(*arguments).exit_code == 0
    out.chmod(0o500)

    @contextmanager
    def killed(new: Path, target: Path) -> Iterator[None]:
        for path in (new, target):
            path.chmod(0o700)
        yield
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pyarrowquant.conversion.partial.publishing.keeping_modes", killed)
        assert run(*arguments, "--bits", 8).exit_code != 0
    assert out.stat().st_mode & 0o777 == 0o700
    assert run(*arguments, "--bits", 8, *options).exit_code == 0
    assert out.stat().st_mode & 0o777 == 0o500
