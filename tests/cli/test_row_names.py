"""Layers go by their names, which rows of tables may share or lack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import failed, succeeded
from models import write_table

from cli.outputs import names_in
from pyarrowquant import quantize_batch_arrow

SUFFIXES = [".parquet", ".arrow"]


def table(names: list[str | None], dtype: str | None = None) -> pa.Table:
    weights = np.random.default_rng(3).standard_normal((len(names), 32 * 64), dtype=np.float32)
    columns = {
        "layer_name": pa.array(names, pa.string()),
        "weights": pa.array(list(weights), pa.list_(pa.float32())),
        "shape": pa.array([[32, 64]] * len(names), pa.list_(pa.int64())),
    }
    if dtype is not None:
        columns["weights"] = pa.array([row.tobytes() for row in weights], pa.binary())
        columns["dtype"] = pa.array([dtype] * len(names))
    return pa.table(columns)


def result(names: list[str]) -> pa.Table:
    return quantize_batch_arrow(table(list(names)), metrics=True, sort=False)


def one_line(*arguments: object) -> str:
    error = failed(*arguments)
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_name_of_two_rows_is_refused_before_any_work(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, once = tmp_path / f"source{suffix}", tmp_path / f"once{suffix}"
    results, coded = tmp_path / f"results{suffix}", tmp_path / f"coded{suffix}"
    write_table(table(["a", "b", "a", "b", "a", "a", "a"]), source)
    write_table(table(["a", "b"]), once)
    write_table(result(["a", "b", "a"]), results)
    write_table(result(["a", "b"]), coded)
    out = tmp_path / "out"
    monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", None)
    rows = "Layer 'a' is in rows 0, 2, 4 and 2 more, and 1 other name likewise. "
    for arguments in (
        ("quantize", source, f"{out}.parquet"),
        ("quantize", source, f"{out}.parquet", "--dry-run"),
        ("quantize", source, f"{out}.parquet", "--continue-on-error"),
        ("quantize", source, f"{out}.gguf"),
        ("recipe", "fit", source, f"{out}.json", "--bits-per-weight", 4.5),
        ("compare", source, coded),
        ("compare", once, source),
        ("report", coded, "--original", source, "--html", f"{out}.html"),
    ):
        error = one_line(*arguments)
        assert f"'{source}': {rows}" in error, arguments
        assert "keep one of these rows" in error
    for arguments in (
        ("compare", once, results),
        ("compare", results, coded),
        ("dequantize", results, f"{out}.parquet"),
        ("dequantize", results, f"{out}.safetensors"),
        ("report", results, "--html", f"{out}.html"),
        ("report", results, "--original", once, "--html", f"{out}.html"),
    ):
        error = one_line(*arguments)
        assert f"'{results}': Layer 'a' is in rows 0 and 2. " in error, arguments
    assert names_in(tmp_path) == sorted(path.name for path in (source, once, results, coded))


def test_inspect_shows_rows_of_one_name(tmp_path: Path) -> None:
    pq.write_table(table(["a", "a"]), tmp_path / "source.parquet")
    assert succeeded("inspect", tmp_path / "source.parquet").count("\na ") == 2


def test_a_name_in_two_files_of_results_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    pq.write_table(result(["a", "b"]), folder / "1.parquet")
    pq.write_table(result(["c", "b"]), folder / "2.parquet")
    pq.write_table(table(["a", "b", "c"]), tmp_path / "source.parquet")
    error = one_line("compare", tmp_path / "source.parquet", folder)
    one, two = (f"row 1 of '{folder / name}'" for name in ("1.parquet", "2.parquet"))
    assert f"Layer 'b' is in {one} and {two}. " in error
    assert f"Layer 'b' is in {one} and {two}. " in one_line(
        "compare", folder, tmp_path / "source.parquet"
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_without_a_name_are_not_left_out(tmp_path: Path, suffix: str) -> None:
    source, coded = tmp_path / f"source{suffix}", tmp_path / f"coded{suffix}"
    named = tmp_path / f"named{suffix}"
    write_table(table(["a", None, "b"]), source)
    write_table(table(["a", "b"]), named)
    write_table(result(["a", "b"]), coded)
    for arguments in (
        ("compare", source, coded, "--allow-missing"),
        ("compare", named, source),
        ("report", coded, "--original", source, "--html", tmp_path / "out.html"),
        ("recipe", "fit", source, tmp_path / "out.json", "--bits-per-weight", 4.5),
        ("quantize", source, tmp_path / "out.parquet"),
        ("quantize", source, tmp_path / "out.gguf", "--dry-run"),
    ):
        error = one_line(*arguments)
        assert f"'{source}': Layer in row 1: layer_name is null. Give it a name" in error
    shown = json.loads(
        succeeded("quantize", source, tmp_path / "out.parquet", "--continue-on-error", "--json")
    )
    assert (shown["layers"], len(shown["skipped"])) == (2, 1)
    names = pa.array(["a", None], pa.string())
    write_table(result(["a", "b"]).set_column(0, "layer_name", names), coded)
    assert f"'{coded}': Layer in row 1: layer_name is null" in one_line("compare", coded, named)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float32", "f32", "FP16", ""])
def test_unknown_names_of_dtypes_are_refused_with_those_that_are_known(
    tmp_path: Path, suffix: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, coded = tmp_path / f"source{suffix}", tmp_path / f"coded{suffix}"
    write_table(table(["a", "b"], dtype), source)
    write_table(result(["a", "b"]), coded)
    out = tmp_path / "out"
    monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", None)
    for arguments in (
        ("quantize", source, f"{out}.parquet"),
        ("quantize", source, f"{out}.gguf", "--dry-run"),
        ("recipe", "fit", source, f"{out}.json", "--bits-per-weight", 4.5),
        ("compare", source, coded, "--allow-missing"),
        ("report", coded, "--original", source, "--html", f"{out}.html"),
    ):
        error = one_line(*arguments)
        assert f"{source}: the dtype '{dtype}' is unknown. " in error, arguments
        assert "F32, F16 or BF16" in error


def test_other_known_dtypes_are_left_out(tmp_path: Path) -> None:
    names = pa.array(["F32", "I32"])
    source = table(["a", "b"], "F32").drop_columns("dtype").append_column("dtype", names)
    pq.write_table(source, tmp_path / "source.parquet")
    shown = succeeded("quantize", tmp_path / "source.parquet", tmp_path / "out.parquet")
    assert "Left out, of dtype I32: b" in shown
