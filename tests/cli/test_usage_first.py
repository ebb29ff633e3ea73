"""Options that cannot be are said before a source is opened, which may take long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import failed


@pytest.mark.parametrize(
    ("to", "options", "text"),
    [
        ("gguf", ["--recipe", "Q4_K_M", "--bits", "4"], "says the types of all tensors"),
        ("mlx", ["--recipe", "Q4_K_M"], "Q4_K_M is of gguf"),
        ("gguf", ["--size", "1G", "--bits-per-weight", "4"], "exclude each other"),
        ("gguf", ["--size", "1G", "--bits", "4"], "exclude each other"),
        ("mlx", ["--size", "1G"], "is for --to"),
        ("parquet", ["--bits-per-weight", "0"], "Must be"),
        ("parquet", ["--quality-floor", "size=2"], "must be 'cosine' or 'relative_error'"),
        ("parquet", ["--max-memory", "1"], "is too little"),
        ("parquet", ["--group-size", "7"], "must be a multiple of 8"),
        ("parquet", ["--recipe", "texts"], "is no file, and none of"),
        ("mlx", ["--encoding", "q4_k"], "and not 'q4_k'"),
        ("compressed-tensors", ["--encoding", "fp8", "--group-size", "64"], "none that fp8 has"),
        ("compressed-tensors", ["--zero-point", "float"], "quantize with --zero-point symmetric"),
    ],
)
def test_usage_comes_before_the_source(
    tmp_path: Path, to: str, options: list[str], text: str
) -> None:
    """The source is not there, which is no usage error."""
    source = tmp_path / "no"
    error = failed("quantize", source, tmp_path / "out", "--to", to, *options, code=2)
    assert text.casefold() in error.casefold()
    assert len(error.splitlines()) == 1
    assert "No such file" not in error
    assert "No such file" in failed("quantize", source, tmp_path / "out", "--to", to)


def test_recipes_of_files_come_before_the_source(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"rules": [{"match": "*", "bits": 7}]}))
    error = failed("quantize", tmp_path / "no", tmp_path / "out.npz.parquet", "--recipe", recipe)
    assert "recipe.json" in error
