"""Folders for transformers: what is copied, what is replaced, and what a failure leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from exports import failing_stream, files

from formats.packed_models import arrays, assert_decodes, results_of, saved
from pyarrowquant import UsageError
from pyarrowquant.formats import write_compressed_tensors


def test_other_files_are_copied_but_for_weights(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    copied = (
        "tokenizer.json", "tokenizer.model", "generation_config.json", "chat_template.jinja",
        "README.md", "LICENSE", "modeling_own.py", "vocab.txt",
    )  # fmt: skip
    left = (
        "pytorch_model.bin", "Model.GGUF", "consolidated.00.pth", "consolidated.safetensors",
        "model.onnx", "adapter.safetensors", "pytorch_model.bin.index.json", ".gitattributes",
        "tf_model.h5", "flax_model.msgpack", "model.safetensors.index.json",
    )  # fmt: skip
    for name in (*copied, *left):
        (model / name).write_text(name)
    for name in ("original", "1_Pooling", ".cache"):
        (model / name).mkdir()
        (model / name / "params.json").write_text(name)
    (model / "original" / "consolidated.00.pth").write_text("weights")
    (model / "linked.txt").symlink_to(model / "README.md")
    write_compressed_tensors(results_of(model, group_size=32), tmp_path / "out", model=model)
    written = files(tmp_path / "out")
    assert written.pop("1_Pooling") == b"folder"
    assert written.pop("1_Pooling/params.json") == b"1_Pooling"
    assert written.keys() == {*copied, "linked.txt", "config.json", "model.safetensors"}
    for name in copied:
        assert written[name] == name.encode()
    assert written["linked.txt"] == b"README.md"
    assert not (tmp_path / "out" / "linked.txt").is_symlink()
    again = results_of(model, group_size=64)
    write_compressed_tensors(again, tmp_path / "out", model=model, overwrite=True)
    (tmp_path / "out" / "1_Pooling" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="has the folder '1_Pooling', which would be lost"):
        write_compressed_tensors(again, tmp_path / "out", model=model, overwrite=True)
    (model / "1_Pooling" / "broken.txt").symlink_to(model / "nothing")
    with pytest.raises(FileNotFoundError, match=r"broken\.txt' is a link to '.*nothing'"):
        write_compressed_tensors(again, tmp_path / "other", model=model)


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [False, True])
def test_failing_streams_leave_nothing(
    tmp_path: Path, error: BaseException, existing: bool
) -> None:
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)
    if existing:
        write_compressed_tensors(results, tmp_path / "out", model=model)
    before = files(tmp_path)
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_compressed_tensors(
            failing_stream(results, error), tmp_path / "out", model=model, overwrite=True
        )
    assert files(tmp_path) == before


def without_atomic_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that cannot exchange two names at once."""
    monkeypatch.setattr("pyarrowquant._core.placing._renamed", lambda *_: False)


@pytest.mark.parametrize("call", ["shutil.copyfile", "os.fsync", "json.dumps", "os.rename"])
def test_any_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    model = saved(tmp_path / "model", arrays())
    (model / "tokenizer.json").write_text("{}")
    results = results_of(model, group_size=32)
    write_compressed_tensors(results, tmp_path / "old", model=model)
    before = files(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    without_atomic_renames(monkeypatch)
    for folder in ("new", "old"):
        with monkeypatch.context() as patch:
            patch.setattr(call, fail)
            with pytest.raises(OSError, match="no space left"):
                write_compressed_tensors(results, tmp_path / folder, model=model, overwrite=True)
        assert files(tmp_path) == before


def test_a_replaced_folder_is_back_when_renaming_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    before = files(tmp_path)
    rename = os.rename

    def fail_for_the_new(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError("gone")
        rename(source, target)

    without_atomic_renames(monkeypatch)
    monkeypatch.setattr("os.rename", fail_for_the_new)
    with pytest.raises(OSError, match="gone"):
        write_compressed_tensors(results, tmp_path / "out", model=model, overwrite=True)
    assert files(tmp_path) == before


def test_existing_folders(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)
    out = tmp_path / "out"
    out.mkdir()
    write_compressed_tensors(results, out, model=model)  # an empty one may be there
    first = files(out)
    (out / "old.txt").write_text("old")
    with pytest.raises(FileExistsError, match=r"out' exists. Use overwrite=True to replace it"):
        write_compressed_tensors(results, out, model=model)
    with pytest.raises(FileExistsError, match=r"has 'old.txt', which would be lost"):
        write_compressed_tensors(results, out, model=model, overwrite=True)
    assert (out / "old.txt").exists()
    (out / "old.txt").unlink()
    write_compressed_tensors(results, out, model=model, overwrite=True)
    assert files(out) == first
    (out / "mine").mkdir()
    with pytest.raises(FileExistsError, match="has the folder 'mine', which would be lost"):
        write_compressed_tensors(results, out, model=model, overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("x")
    with pytest.raises(FileExistsError, match=r"has no model, neither config.json nor \*.safe"):
        write_compressed_tensors(results, other, model=model, overwrite=True)
    with pytest.raises(UsageError, match="is a file; give the name of a folder"):
        write_compressed_tensors(results, other / "letter.txt", model=model, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"Folder '.*no' does not exist. Make it first"):
        write_compressed_tensors(results, tmp_path / "no" / "out", model=model)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out", "other"}


def test_the_source_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    model = saved(tmp_path / "parent" / "model", arrays())
    (tmp_path / "parent" / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(model)
    results = results_of(model, group_size=32)
    before = files(tmp_path)
    for target in (model, tmp_path / "parent", tmp_path / "link", model / ".." / "model"):
        with pytest.raises(ValueError, match="is the folder of the source model, or has it inside"):
            write_compressed_tensors(results, target, model=model, overwrite=True)
    assert files(tmp_path) == before
    write_compressed_tensors(results, model / "packed", model=model)
    assert_decodes(model / "packed", results)


def test_a_source_that_changes_is_an_error(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)

    def changing() -> Any:
        with (model / "model.safetensors").open("ab") as file:
            file.write(b"x")
        yield from results.to_batches()

    stream = pa.RecordBatchReader.from_batches(results.schema, changing())
    with pytest.raises(ValueError, match="bytes when its header was read, now it has"):
        write_compressed_tensors(stream, tmp_path / "out", model=model)
    assert os.listdir(tmp_path) == ["model"]
