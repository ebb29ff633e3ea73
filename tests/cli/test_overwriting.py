"""What lies at the destination is replaced only when asked for, sources never."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import failed, succeeded

from cli.onnx_products import onnx_model
from cli.outputs import names_in, read
from pyarrowquant.formats.tables import TableFormat


def test_overwriting_folders_with_care(model: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letters.txt").write_text("dear")
    to = ["--to", "mlx", "--recipe", "text"]
    assert "exists" in failed("quantize", model, mine, *to)
    assert "has no model, neither" in failed("quantize", model, mine, *to, "--overwrite")
    assert "source in it" in failed("quantize", model, tmp_path, *to, "--overwrite")
    assert "is a file" in failed("quantize", model, model, *to, "--overwrite", code=2)
    succeeded("quantize", model, tmp_path / "other", *to)
    (tmp_path / "other" / "checkpoint").mkdir()
    error = failed("quantize", model, tmp_path / "other", *to, "--overwrite")
    assert "has the folder 'checkpoint', which would be lost" in error
    (tmp_path / "other" / "checkpoint").rmdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    error = failed("quantize", model, tmp_path / "other", *to, "--overwrite")
    assert "has 'notes.txt', which would be lost" in error
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"
    (tmp_path / "other" / "notes.txt").unlink()
    succeeded("quantize", model, tmp_path / "other", *to, "--overwrite")
    assert (mine / "letters.txt").read_text() == "dear"


def test_onnx_sources_are_not_overwritten(tmp_path: Path) -> None:
    import onnx

    source = tmp_path / "model.onnx"
    onnx_model(source)
    for name in ("small.onnx.data", f"small.onnx.{'0' * 16}.data"):  # as data of ours is named
        data = {"save_as_external_data": True, "location": name, "size_threshold": 0}
        onnx.save(onnx.load(source), source, **data)
        before = source.read_bytes(), (tmp_path / name).read_bytes()
        assert "is the source" in failed("quantize", source, source, "--overwrite")
        assert "is the source" in failed(
            "quantize", source, tmp_path / name, "--to", "onnx", "--overwrite"
        )
        succeeded("quantize", source, tmp_path / "small.onnx", "--overwrite")
        assert before == (source.read_bytes(), (tmp_path / name).read_bytes())
        onnx.checker.check_model(tmp_path / "small.onnx")


def test_sources_are_never_replaced(llama: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    tables = tmp_path / "tables"
    succeeded("quantize", llama, table)
    succeeded("quantize", llama, tables, "--to", "parquet")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    shard, uri = llama / "model.safetensors", f"file://{llama}"
    over = "--overwrite"
    for source in (llama, uri, shard, f"file://{shard}"):
        assert "is the source" in failed("quantize", source, shard, "--to", "gguf", over)
        page = ["report", table, "--html", shard, "--original", source]
        assert "is the source" in failed(*page, over)
        fit = ["recipe", "fit", source, llama / "config.json", "--bits-per-weight", 5]
        assert "is the source" in failed(*fit, over)
    for source in (llama, uri):
        assert "has the source in it" in failed("quantize", source, llama, "--to", "mlx", over)
    part = tables / "model.parquet"
    assert "is the source" in failed("dequantize", tables, part, over)
    assert "is the source" in failed("report", tables, "--html", part, over)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.safetensors").symlink_to(shard)
    linked = snapshot / "model.safetensors"
    assert "has the source in it" in failed("quantize", linked, snapshot, "--to", "mlx", over)
    assert before == {p: p.read_bytes() for p in before}
    assert linked.is_symlink()


def test_links_lead_to_where_the_output_lies(llama: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    succeeded("quantize", llama, tmp_path / "link", "--to", "mlx")
    assert (tmp_path / "link").is_symlink()
    assert "model.safetensors" in names_in(real)
    (tmp_path / "t.parquet").symlink_to(tmp_path / "target.parquet")
    succeeded("quantize", llama, tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").is_symlink()
    assert (tmp_path / "target.parquet").is_file()


def test_what_appears_at_the_destination_meanwhile_is_kept(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "out.parquet", TableFormat.write

    def slow(*arguments: Any) -> None:
        write(*arguments)
        out.write_text("mine")

    monkeypatch.setattr(TableFormat, "write", slow)
    assert "was made while this ran" in failed("quantize", llama, out)
    assert out.read_text() == "mine"
    monkeypatch.undo()
    assert "was made while" in failed("quantize", llama, out, "--resume")
    succeeded("quantize", llama, out, "--resume", "--overwrite")
    assert read(out).num_rows == 4
    assert not list(tmp_path.glob(".*"))


def test_the_work_of_others_is_not_touched(llama: Path, tmp_path: Path) -> None:
    mine = tmp_path / ".out.parquet.partial"
    mine.mkdir()
    (mine / "letters.txt").write_text("dear")
    assert "it is not of this program" in failed("quantize", llama, tmp_path / "out.parquet")
    assert names_in(mine) == ["letters.txt"]


def test_the_current_folder_is_no_destination(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    error = failed("quantize", llama, ".", "--to", "mlx", code=2)
    assert "is the current folder" in error
