"""Results of layouts to come are refused by name, wherever they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from conftest import plain

from pyarrowquant import compare, dequantize_batch_arrow, quantize_batch_arrow, read_weights
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
    "a column": (
        lambda: noted(1).append_column("row_dimensions", pa.array([None])),
        "Column 'row_dimensions' says how codes are meant",
    ),
    "a column without metadata": (
        lambda: (
            noted(1)
            .append_column("pyarrowquant_levels2", pa.array([[1.0]]))
            .replace_schema_metadata(None)
        ),
        "Column 'pyarrowquant_levels2' says how codes are meant",
    ),
}
NO_VERSIONS = {
    str(value): (
        lambda value=value: noted(value),
        f"Results have format_version {value!r}, which no version of pyarrowquant writes",
    )
    for value in (0, -1, "1", True, None, 1.5, [1])
}
REFUSED = {
    **{name: (*each, "Install a later version") for name, each in LATER.items()},
    **{name: (*each, "Make the file or the table anew") for name, each in NO_VERSIONS.items()},
}


@pytest.mark.parametrize("name", REFUSED)
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
    make, problem, way_out = REFUSED[name]
    with pytest.raises(ValueError, match=f"{re.escape(problem)}.*{way_out}"):
        read(make())


@pytest.mark.parametrize("name", REFUSED)
def test_read_weights(name: str, tmp_path: Path) -> None:
    make, problem, way_out = REFUSED[name]
    pq.write_table(noted(1), tmp_path / "1.parquet")
    later = tmp_path / "2.parquet"
    pq.write_table(make(), later)
    for source in (later, tmp_path):
        wanted = f"^{re.escape(str(later))}: {re.escape(problem)}.*{way_out}"
        with pytest.raises(ValueError, match=wanted):
            read_weights(source).read_all()


@pytest.mark.parametrize("name", REFUSED)
def test_commands(name: str, tmp_path: Path) -> None:
    make, problem, way_out = REFUSED[name]
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
            assert way_out in result.stderr
            assert result.stderr.count("\n") == 1


def test_results_of_other_programs_are_read() -> None:
    wanted = dequantize_batch_arrow(noted(1))
    for metadata in (None, {"pyarrowquant": "no JSON"}, {"pyarrowquant": "[]"}, {"other": "x"}):
        result = noted(1).replace_schema_metadata(metadata)
        assert dequantize_batch_arrow(result).equals(wanted)


def test_columns_of_users_are_ignored() -> None:
    """Nothing says that they change what codes mean, whatever they are called."""
    wanted = dequantize_batch_arrow(noted(1))
    more = noted(1)
    for name in ("levels2", "note", "encoding_of_mine", "row_dimensions_of_mine", "pyarrowquant"):
        more = more.append_column(name, pa.array(["x"]))
    assert dequantize_batch_arrow(more).equals(wanted)
