"""Results of layouts to come are refused by name, wherever they are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from conftest import plain

from pyarrowquant import compare, dequantize_batch_arrow, quantize_batch_arrow
from pyarrowquant.formats import write_gguf

WEIGHTS = plain(["a"], [[float(i) for i in range(64)]])
SYMMETRIC = {"group_size": 32, "zero_point": "symmetric", "scale_dtype": "float16"}


def noted(value: object) -> pa.Table:
    """Results whose metadata say this as their version."""
    result = quantize_batch_arrow(WEIGHTS, **SYMMETRIC)
    said = json.loads(result.schema.metadata[b"pyarrowquant"])
    return result.replace_schema_metadata(
        {"pyarrowquant": json.dumps({**said, "format_version": value})}
    )


LATER = {
    "2": (lambda: noted(2), "Results have format_version 2, and this version"),
    "0": (lambda: noted(0), "Results have format_version 0, "),
    "text": (lambda: noted("1"), "Results have format_version '1', "),
    "true": (lambda: noted(True), "Results have format_version True, "),
    **{
        name: (
            lambda name=name: noted(1).append_column(name, pa.array([None])),
            f"Column '{name}' says how codes are meant",
        )
        for name in ("row_dimensions",)
    },
}


@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize(
    "read",
    [
        dequantize_batch_arrow,
        lambda result: dequantize_batch_arrow(result.to_reader()),
        lambda result: compare(WEIGHTS, result),
        lambda result: write_gguf(result, "never.gguf"),
    ],
)
def test_functions(name: str, read: Callable[[pa.Table], Any]) -> None:
    make, problem = LATER[name]
    with pytest.raises(ValueError, match=f"{problem}.*Install a later version"):
        read(make())


@pytest.mark.parametrize("name", LATER)
def test_commands(name: str, tmp_path: Path) -> None:
    make, problem = LATER[name]
    (tmp_path / "folder").mkdir()
    pq.write_table(noted(1), tmp_path / "folder" / "1.parquet")
    later = tmp_path / "folder" / "2.parquet"
    pq.write_table(make(), later)
    pq.write_table(WEIGHTS, tmp_path / "w.parquet")
    for source in (later, tmp_path / "folder"):
        for arguments in (
            ["dequantize", source, tmp_path / "out.arrow"],
            ["inspect", source],
            ["compare", tmp_path / "w.parquet", source],
            ["report", source, "--html", tmp_path / "out.html"],
        ):
            result = run(*arguments)
            assert result.exit_code == 1
            assert result.stderr.startswith(f"Error: '{later}': {problem}"), result.stderr


def test_results_of_other_programs_are_read() -> None:
    wanted = dequantize_batch_arrow(noted(1))
    for metadata in (None, {"pyarrowquant": "no JSON"}, {"pyarrowquant": "[]"}, {"other": "x"}):
        result = noted(1).replace_schema_metadata(metadata)
        assert dequantize_batch_arrow(result).equals(wanted)
