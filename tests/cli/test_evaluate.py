"""What evaluate refuses without llama.cpp, which other tests have."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf_models
import pytest
from commands import failed


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A GGUF model and a text, where llama.cpp is not installed."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    text = tmp_path / "text.txt"
    text.write_text("Some words of a text.")
    return gguf_models.saved(tmp_path / "model.gguf"), text


def test_the_extra_is_named(files: tuple[Path, Path]) -> None:
    model, text = files
    said = failed("evaluate", model, "--text", text)
    assert said == (
        "Error: Evaluating needs llama-cpp-python: pip install 'pyarrowquant[evaluate]'\n"
    )


def test_what_is_no_gguf_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, text = files
    for command in (["evaluate", text], ["evaluate", model, "--against", text]):
        said = failed(*command, "--text", text)
        assert f"{text}: no GGUF file." in said
        assert "`pyarrowquant quantize FOLDER x.gguf` makes one" in said
    assert f"{tmp_path} is a folder" in failed("evaluate", tmp_path, "--text", text)
    assert f"{tmp_path} is a folder" in failed("evaluate", model, "--text", tmp_path)
    for missing in (["nothing.gguf", "--text", text], [model, "--text", "nothing.txt"]):
        said = failed("evaluate", *missing)
        assert (
            said
            == f"Error: No such file or folder: '{missing[-1 if missing[0] == model else 0]}'\n"
        )


def test_texts_that_are_not_utf_8(files: tuple[Path, Path]) -> None:
    model, text = files
    text.write_bytes(b"Gr\xfc\xdfe")
    assert f"{text}: the text is not UTF-8: byte 2 is 0xfc" in failed(
        "evaluate", model, "--text", text
    )


def test_options_out_of_bounds(files: tuple[Path, Path]) -> None:
    model, text = files
    assert "7 is not in the range x>=8" in failed(
        "evaluate", model, "--text", text, "--context", 7, code=2
    )
    assert "Missing option '--text'" in failed("evaluate", model, code=2)
