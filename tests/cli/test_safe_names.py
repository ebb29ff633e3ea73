"""Names come from files of others: in messages they are one line, and no longer than one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from safetensors.numpy import save_file

from pyarrowquant import (
    QuantizationError,
    numpy_to_arrow_table,
    quantize_batch,
    quantize_batch_arrow,
)
from pyarrowquant.reading.importance_tensors import Origin, metadata_of

NAMES = ["a\nb.weight", "c\x1b[31md\x07.weight", "e\u202ef\x85g.weight", "n" * 100_000, ""]
_LONGEST = 2_000


def wrong(name: str) -> pa.Table:
    return numpy_to_arrow_table({name: np.array([1.0, np.nan], np.float32)})


def check(text: str, most_lines: int) -> None:
    assert text
    assert all(len(line) < _LONGEST for line in text.splitlines())
    assert all(character.isprintable() for character in text.replace("\n", "")), ascii(text)
    assert text.count("\n") <= most_lines, text


def layers(name: str, rows: int = 64) -> pa.Table:
    weights = np.random.default_rng(5).standard_normal((rows, 64), dtype=np.float32)
    return numpy_to_arrow_table({name: weights, "other": weights})


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_in_errors_of_layers(name: str) -> None:
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(wrong(name))
    check(str(caught.value), 0)
    assert caught.value.errors[0].layer_name == name
    with pytest.raises(QuantizationError) as caught:
        quantize_batch({name: np.array([1], np.int64)})  # type: ignore[dict-item]
    check(str(caught.value), 0)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_in_what_commands_print(tmp_path: Path, name: str) -> None:
    source, other = tmp_path / "source.parquet", tmp_path / "other.parquet"
    coded, twice = tmp_path / "coded.parquet", tmp_path / "twice.parquet"
    broken, narrow = tmp_path / "broken.parquet", tmp_path / "narrow.parquet"
    pq.write_table(layers(name), source)
    pq.write_table(layers("x"), other)
    pq.write_table(quantize_batch_arrow(layers(name)), coded)
    pq.write_table(pa.concat_tables([layers(name), layers(name)]), twice)
    pq.write_table(wrong(name), broken)
    pq.write_table(numpy_to_arrow_table({name: np.ones((4, 7), np.float32)}), narrow)
    out = tmp_path / "out"
    for arguments in (
        ("inspect", source),
        ("inspect", coded),
        ("quantize", source, f"{out}.parquet", "--dry-run"),
        ("quantize", source, f"{out}.gguf", "--dry-run"),
        ("quantize", source, f"{out}.gguf", "--scale-dtype", "bfloat16"),
        ("quantize", source, f"{out}.onnx", "--bits", 5),
        ("quantize", narrow, f"{out}.gguf"),
        ("quantize", twice, f"{out}.parquet"),
        ("quantize", broken, f"{out}.parquet"),
        ("quantize", broken, f"{out}.parquet", "--continue-on-error"),
        ("quantize", source, f"{out}.parquet", "--quality-floor", 0.9999999, "--overwrite"),
        ("compare", source, coded),
        ("compare", other, coded),
        ("compare", source, twice),
        ("compare", source, other, "--allow-missing"),
        ("recipe", "fit", twice, f"{out}.json", "--bits-per-weight", 5),
        ("report", coded, "--html", f"{out}.html"),
        ("dequantize", coded, f"{out}.safetensors", "--overwrite"),
    ):
        done = run(*arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        check(done.output, 8)
    for arguments in (
        ("quantize", twice, f"{out}.parquet", "--overwrite"),
        ("quantize", broken, f"{out}.parquet", "--overwrite"),
        ("compare", source, twice),
        ("recipe", "fit", twice, f"{out}.json", "--bits-per-weight", 5),
    ):
        check(run(*arguments).stderr, 1)


@pytest.mark.parametrize("name", NAMES[:4], ids=range(4))
def test_names_of_tensors_in_files(tmp_path: Path, name: str) -> None:
    weights = np.ones((64, 64), np.float32)
    save_file({name: weights, "i": np.ones((4, 4), np.int64)}, tmp_path / "a.safetensors")
    save_file({"i" + name: np.ones((4, 4), np.int64), "b": weights}, tmp_path / "b.safetensors")
    for source in ("a", "b"):
        for suffix in (".gguf", ".parquet", ".onnx"):
            path = tmp_path / f"{source}.safetensors"
            check(run("quantize", path, tmp_path / f"out{suffix}", "--dry-run").output, 8)


@pytest.mark.parametrize("name", NAMES[:4], ids=range(4))
def test_names_of_importance(tmp_path: Path, name: str) -> None:
    source, importance = tmp_path / "source.parquet", tmp_path / "importance.safetensors"
    pq.write_table(layers(name), source)
    for known, columns, said in (
        ("other", 64, "Without importance in "),
        ("x" + name, 64, "another model"),
        (name, 3, "3 values"),
    ):
        header = metadata_of(Origin([], 1, 1))
        save_file({known: np.ones(columns, np.float32)}, importance, header)
        done = run(
            *("quantize", source, tmp_path / "out.gguf", "--dry-run"), "--importance", importance
        )
        check(done.output, 8)
        assert said in done.output


@pytest.mark.skipif(sys.platform == "win32", reason="no such names of files there")
@pytest.mark.parametrize("stem", ["a\nb", "c\x1b[31md"])
def test_names_of_destinations(tmp_path: Path, stem: str) -> None:
    source, made = tmp_path / "source.npz", tmp_path / f"{stem}.parquet"
    np.savez(source, **{"up.weight": np.ones((64, 64), np.float32)})
    for arguments in (
        ("quantize", source, made, "--dry-run"),
        ("quantize", source, made),
        ("dequantize", made, tmp_path / f"{stem}.safetensors"),
        ("recipe", "fit", source, tmp_path / f"{stem}.json", "--bits-per-weight", 4.5),
    ):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        shown = [line for line in result.stdout.splitlines() if repr(stem)[1:-1] in line]
        assert len(shown) == 1, result.stdout
        assert all(line.isprintable() for line in result.stdout.splitlines())
