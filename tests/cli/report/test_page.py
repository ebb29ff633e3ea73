"""The page by itself: nothing in it does harm, asks for anything, or grows too large."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cli.report.reports import HOSTILE, report, written
from pyarrowquant import Recipe, Rule, numpy_to_arrow_table, quantize_batch_arrow


def test_hostile_names_are_text(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    plain = {str(i): rng.standard_normal((4, 64), np.float32) for i in range(len(HOSTILE))}
    hostile = dict(zip(HOSTILE, plain.values(), strict=True))
    left_out = {"<script>left</script>": np.ones((1, 8), np.float32)}
    original = written(numpy_to_arrow_table(hostile | left_out), tmp_path, "original.arrow")
    result = quantize_batch_arrow(numpy_to_arrow_table(hostile), sort=False)
    metadata = {"pyarrowquant": json.dumps({"method": HOSTILE[0], "version": HOSTILE[1]})}
    result = result.replace_schema_metadata(metadata)
    page = report(written(result, tmp_path), tmp_path, "--original", original)
    assert [layer["layer_name"] for layer in page.data["layers"]] == HOSTILE
    assert page.data["left_out"] == list(left_out)
    assert page.data["settings"]["method"] == HOSTILE[0]
    shown = {row[0] for row in page.tables["all"][1:]}
    assert shown == {*HOSTILE[:-1], "line\\nbreak\\u202e\\x1b[31m"}

    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"img", "a", "i"})
    assert [tag for tag, _ in page.tags].count("script") == 4
    assert not [key for _, said in page.tags for key in said if key.startswith("on")]
    benign = quantize_batch_arrow(numpy_to_arrow_table(plain), metrics=True, sort=False)
    page_of_plain = report(written(benign, tmp_path), tmp_path)
    assert [tag for tag, _ in page_of_plain.tags].count("th") == [
        tag for tag, _ in page.tags
    ].count("th")
    # what charts show is read as HTML by them
    for trace in page.charts["overview"]["data"]:
        for text in trace["hovertext"]:
            inside = text.removeprefix("<b>").partition("</b><br>")[0]
            assert "<" not in inside
    # blocks of JSON cannot end early, whoever reads them
    for script in page.scripts[:2]:
        assert "<" not in script


def test_the_page_asks_for_nothing(model: Path, result: Path, tmp_path: Path) -> None:
    page = report(result, tmp_path, "--original", model)
    for tag, said in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "href", "srcset", "data", "poster", "action"}.intersection(said)
    policies = [said["content"] for _, said in page.tags if "http-equiv" in said]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'; script-src 'nonce-")
    style = (tmp_path / "report.html").read_text().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_thousands_of_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    weights = {
        f"model.layers.{i // 8}.part.{i % 8}.weight": rng.standard_normal((8, 64), np.float32)
        for i in range(3000)
    }
    table = numpy_to_arrow_table(weights)
    recipe = Recipe([Rule("*.3.weight", bit_width=8), Rule("*.5.weight", bit_width=2)])
    result = quantize_batch_arrow(table, recipe=recipe, metrics=True)
    page = report(written(result, tmp_path, "result.parquet"), tmp_path)
    assert len(page.data["layers"]) == 3000
    assert len(page.tables["all"]) == 3001
    assert len(page.tables["worst"]) == 21
    points = [len(trace["x"]) for trace in page.charts["overview"]["data"] if trace["yaxis"] == "y"]
    assert sum(points) == 3000
    assert (tmp_path / "report.html").stat().st_size < 10_000_000


def test_layers_without_error_or_without_weights(tmp_path: Path) -> None:
    usual = np.random.default_rng(0).standard_normal(64, np.float32)
    columns = {
        "layer_name": ["zeros", "constant", "none", "usual"],
        "weights": [np.zeros(64, np.float32), np.full(64, 2, np.float32), usual[:0], usual],
        "shape": [[4, 16], [4, 16], [0, 16], [4, 16]],
    }
    result = quantize_batch_arrow(pa.table(columns), metrics=True, sort=False)
    path = written(result, tmp_path)
    original = written(pa.table(columns), tmp_path, "original.arrow")
    own, measured = (
        report(path, tmp_path, *options).data for options in ((), ("--original", original))
    )
    assert [layer["relative_error"] == 0 for layer in own["layers"]] == [True, True, True, False]
    assert own["layers"][0]["signal_to_noise_db"] == "inf"
    assert own["totals"] == pytest.approx(measured["totals"])
    page = report(path, tmp_path)
    assert "3 layers without a finite error above 0" in page.text
    assert len([name for name in page.charts if name.startswith("histogram")]) == 3

    columns["weights"][3] = np.zeros(64, np.float32)
    original = written(pa.table(columns), tmp_path, "zeros.arrow")
    page = report(path, tmp_path, "--original", original)
    assert page.data["layers"][3]["relative_error"] == "inf"
    assert page.tables["worst"][1][0] == "usual"
