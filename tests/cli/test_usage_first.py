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
        ("mlx", ["--group-size", "16"], "group_size 16: quantize with --group-size 32, 64 or 128"),
        ("mlx", ["--group-size", "-1"], "group_size -1: quantize with --group-size 32, 64 or 128"),
        ("gguf", ["--group-size", "64"], "group_size 64: quantize with --group-size 32"),
        ("gguf", ["--bits", "3"], "quantize with --bits 4, 5 or 8, or with --encoding q3_k"),
        ("gguf", ["--bits", "6"], "quantize with --bits 4, 5 or 8, or with --encoding q6_k"),
        (
            "gguf",
            ["--bits", "8", "--zero-point", "float"],
            "8 bits with float zero-points: quantize with --zero-point symmetric",
        ),
        ("gguf", ["--scale-dtype", "float32"], "quantize with --scale-dtype float16"),
        ("gguf", ["--recipe", "edge"], "holds no such layer: 2 bits: quantize with --bits 4,"),
        ("onnx", ["--bits", "3"], "3 bits: quantize with --bits 2, 4 or 8"),
        ("onnx", ["--group-size", "24"], "group_size 24: quantize with --group-size 32, another"),
        ("onnx", ["--group-size", "8"], "another power of two that is at least 16, or -1"),
        (
            "onnx",
            ["--bits", "8", "--zero-point", "float"],
            "8 bits with float zero-points: quantize with --zero-point integer",
        ),
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


@pytest.mark.parametrize(
    ("to", "options"),
    [
        ("gguf", ["--encoding", "q3_k"]),
        ("gguf", ["--recipe", "local"]),
        ("gguf", ["--recipe", "text-cloud"]),
        ("gguf", ["--zero-point", "float", "--bits", "5"]),
        ("mlx", ["--encoding", "mxfp4"]),
        ("mlx", ["--bits", "3", "--group-size", "128"]),
        ("mlx", ["--recipe", "edge"]),
        ("onnx", ["--group-size", "-1"]),
        ("onnx", ["--recipe", "edge"]),
        ("onnx", ["--bits", "2", "--zero-point", "float", "--group-size", "256"]),
        ("bitsandbytes", ["--recipe", "local"]),
    ],
)
def test_what_a_format_holds_is_not_refused(tmp_path: Path, to: str, options: list[str]) -> None:
    error = failed("quantize", tmp_path / "no", tmp_path / "out", "--to", to, *options)
    assert "No such file" in error
