"""Names that systems take for others, or for none."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import pytest
import windows
from commands import failed, run, succeeded
from exports import files, quantized, weights

from pyarrowquant import read_weights
from pyarrowquant.formats import write_gguf, write_mlx
from pyarrowquant.recipes.recipe import Recipe

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")

COMPOSED, APART = (unicodedata.normalize(form, "mod\u00e8le") for form in ("NFC", "NFD"))


@pytest.fixture
def table(model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "table.parquet"
    succeeded("quantize", model, path)
    return path


@pytest.mark.parametrize(
    ("name", "other"),
    [("table", "TABLE"), ("Stra\u00dfe", "STRASSE"), (COMPOSED, APART), (COMPOSED, APART.upper())],
)
def test_the_source_by_another_name_is_not_replaced(table: Path, name: str, other: str) -> None:
    """Two links to a file are to a program what two names are where case does not count."""
    source, same = table.with_name(f"{name}.parquet"), table.with_name(f"{other}.parquet")
    table.rename(source)
    os.link(source, same)
    before = files(source.parent)
    for command in ("quantize", "dequantize"):
        assert "is the source, or a file of it" in failed(command, source, same, "--overwrite")
    assert files(source.parent) == before


def test_links_of_other_names_are_other_files(table: Path) -> None:
    other = table.with_name("copy.parquet")
    os.link(table, other)
    before = table.read_bytes()
    succeeded("dequantize", table, other, "--overwrite")
    assert table.read_bytes() == before != other.read_bytes()


def in_capitals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a name of a folder that nothing tells from its own but that both are the same."""
    same = folder.with_name(folder.name.upper())
    same.symlink_to(folder)
    monkeypatch.setattr(os.path, "realpath", os.path.abspath)  # macOS leaves a name as it is given
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)
    return same


@pytest.mark.parametrize("to", ["compressed-tensors", "mlx", "bitsandbytes", "parquet"])
def test_the_folder_of_the_source_by_another_name(
    model: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    same = in_capitals(model, monkeypatch)
    before = files(model)
    assert "has the source in it" in failed("quantize", model, same, "--to", to, "--overwrite")
    assert files(model) == before


def test_the_current_folder_by_another_name(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = model.with_name("here")
    here.mkdir()
    monkeypatch.chdir(here)
    same = in_capitals(here, monkeypatch)
    assert "is the current folder" in failed("quantize", model, same, "--to", "mlx", code=2)


NO_NAMES = ("nul", "CON.parquet", "aux.gguf", "Com1.onnx", "lpt\u00b9", "a:b.parquet", "a?.gguf")


@pytest.mark.parametrize("name", [*NO_NAMES, "a.", "b "])
def test_what_is_no_name_on_windows_is_refused_before_any_work(
    model: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows.play(monkeypatch)
    out = tmp_path / "out"
    out.mkdir()
    to = () if Path(name).suffix in (".parquet", ".gguf", ".onnx") else ("--to", "mlx")
    for arguments in (
        ("quantize", model, out / name, *to),
        ("quantize", model, out / name, *to, "--dry-run"),
        ("recipe", "fit", model, out / name, "--bits-per-weight", 4.5),
    ):
        assert "is no name of a file on Windows" in failed(*arguments, code=2)
    result = quantized(weights(0, 2, 64), group_size=32, scale_dtype="float16")
    for write in (write_gguf, write_mlx):
        with pytest.raises(ValueError, match="is no name of a file on Windows"):
            write(result, out / name)
    with pytest.raises(ValueError, match="is no name of a file on Windows"):
        Recipe.preset("text").save(out / "con.json")
    assert not list(out.iterdir())


def test_names_that_windows_has(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows.play(monkeypatch)
    for name in ("console.parquet", "com10.parquet", "nul_.parquet", "a.nul.parquet"):
        succeeded("quantize", model, tmp_path / name)


@pytest.mark.skipif(sys.platform != "linux", reason="names with any character but /")
@pytest.mark.parametrize("name", ["nul.parquet", "a:b?.parquet", "a\\b.parquet", "c ."])
def test_other_systems_have_all_names(model: Path, tmp_path: Path, name: str) -> None:
    result = run("quantize", model, tmp_path / name, "--to", "parquet")
    assert result.exit_code == 0, result.output
    assert read_weights(model).read_all().num_rows
