"""`pyarrowquant report`: what is refused, replaced and missing."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import failed, succeeded

from cli.outputs import names_in
from cli.report.pages import Page
from cli.report.reports import METRICS, written
from pyarrowquant import numpy_to_arrow_table


def test_what_is_refused(model: Path, result: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    bare = written(pq.read_table(result).drop_columns(METRICS), tmp_path, "bare.parquet")
    error = failed("report", bare, "--html", page)
    assert "has no errors of its layers" in error
    assert "--original" in error
    assert len(error.splitlines()) == 1
    partly = written(pq.read_table(result).drop_columns(["mse"]), tmp_path, "partly.parquet")
    assert "has no errors" in failed("report", partly, "--html", page)
    table = pq.read_table(result)
    nulls = table.set_column(
        table.column_names.index("cosine"), "cosine", pa.nulls(table.num_rows, pa.float64())
    )
    error = failed("report", written(nulls, tmp_path, "nulls.arrow"), "--html", page)
    assert "cosine is None. Give the original" in error
    position = table.column_names.index("mse")
    for value in (-1.0, math.nan, math.inf):
        column = pa.array([value] * table.num_rows)
        path = written(table.set_column(position, "mse", column), tmp_path, "mse.arrow")
        assert f"mse is {value}" in failed("report", path, "--html", page)
    twice = written(table.append_column("mse", table["mse"]), tmp_path, "twice.arrow")
    assert "has no errors" in failed("report", twice, "--html", page)
    assert "has nothing that is quantized" in failed("report", model, "--html", page)
    assert "does not exist" in failed("report", tmp_path / "nope.parquet", "--html", page)
    empty = written(table.slice(0, 0), tmp_path, "empty.arrow")
    assert "has no layers" in failed("report", empty, "--html", page)
    assert "--html" in failed("report", result, code=2)
    assert "is a folder" in failed("report", result, "--html", tmp_path, code=2)
    assert "no/report.html" not in failed(
        "report", result, "--html", tmp_path / "no" / "r.html", code=2
    )
    assert "is the source" in failed("report", bare, "--html", bare, "--overwrite")
    other = written(numpy_to_arrow_table({"x": np.ones((1, 8), np.float32)}), tmp_path, "x.arrow")
    error = failed("report", result, "--html", page, "--original", other)
    assert "Layer 'a.bias' is not in original" in error
    cut = table.slice(0, 1).set_column(2, "scales", [[[1.0]]])
    wrong = written(cut.cast(table.schema), tmp_path, "wrong.arrow")
    assert "is corrupt: scales" in failed("report", wrong, "--html", page)
    assert not [name for name in names_in(tmp_path) if "report.html" in name]


def test_overwrite(result: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("mine")
    assert "--overwrite" in failed("report", result, "--html", page)
    assert page.read_text() == "mine"
    text = succeeded("report", result, "--html", page, "--overwrite")
    assert text.startswith("4 layers, ")
    assert Page(page).data["totals"]["layers"] == 4
    assert names_in(tmp_path) == ["report.html"]


@pytest.mark.parametrize("package", ["jinja2", "plotly"])
def test_a_missing_package_is_one_line(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    error = failed("report", result, "--html", tmp_path / "report.html")
    assert error.count("\n") == 1
    assert "pip install 'pyarrowquant[report]'" in error
    assert names_in(tmp_path) == []
