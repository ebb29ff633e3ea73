"""The page that `pyarrowquant report` writes."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from models import write_table
from pages import Page
from safetensors.numpy import save_file
from test_cli import failed, names_in, succeeded

from pyarrowquant import (
    Recipe,
    Rule,
    compare,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch_arrow,
    read_weights,
)

METRICS = ["mse", "relative_error", "cosine", "max_abs_error"]
RECIPE = Recipe(
    [
        Rule("left.*", skip=True),
        Rule("b.*", bit_width=3, group_size=32),
        Rule("c.*", bit_width=8, group_size=-1),
        Rule("d.*", bit_width=5, zero_point="float"),
    ]
)
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><b onmouseover="alert(1)">x</b>',
    "' onclick='alert(1)",
    '<a href="https://example.com">link</a>',
    "{{ 7 * 7 }}{% raw %}%{x}",
    "<!--<script>",
    "]]>&lt;i&gt;",
    "line\nbreak\u202e\x1b[31m",
]


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(12)
    return {
        "left.weight": rng.standard_normal((8, 8), np.float32),
        "b.weight": rng.standard_normal((40, 100), np.float32),
        "d.weight": rng.standard_normal((24, 3, 5), np.float32).astype(np.float16),
        "c.weight": rng.standard_normal((16, 256), np.float32).astype(ml_dtypes.bfloat16),
        "a.bias": rng.standard_normal(300, np.float32),
    }


@pytest.fixture(scope="module")
def model(weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(weights, path)
    return path


@pytest.fixture(scope="module")
def result(model: Path) -> Path:
    path = model.with_name("result.parquet")
    RECIPE.save(model.with_name("recipe.json"))
    succeeded("quantize", model, path, "--recipe", model.with_name("recipe.json"))
    return path


def report(result: Path, folder: Path, *options: object) -> Page:
    succeeded("report", result, "--html", folder / "report.html", *options, "--overwrite")
    assert "report.html" in names_in(folder)
    return Page(folder / "report.html")


def written(table: pa.Table, folder: Path, name: str = "result.arrow") -> Path:
    write_table(table, folder / name)
    return folder / name


def numbers(cell: str) -> float:
    return float(cell.replace(",", ""))


def test_numbers_are_those_of_the_results(result: Path, tmp_path: Path) -> None:
    rows = pq.read_table(result).to_pylist()
    page = report(result, tmp_path)
    layers = page.data["layers"]
    for layer, row in zip(layers, rows, strict=True):
        for field in ("layer_name", "shape", "bit_width", "group_size", *METRICS):
            assert layer[field] == row[field]
        assert layer["weights"] == math.prod(row["shape"])
        assert layer["bytes"] == len(row["quantized_data"]) + 8 * len(row["scales"])
        assert layer["bits_per_weight"] == pytest.approx(8 * layer["bytes"] / layer["weights"])
    inspected = json.loads(succeeded("inspect", result, "--json"))
    assert [one["bytes"] for one in inspected["layers"]] == [one["bytes"] for one in layers]
    assert page.data["totals"]["weights"] == inspected["weights"]
    assert page.data["settings"] == json.loads(pq.read_schema(result).metadata[b"pyarrowquant"])
    assert page.data["original"] is None
    assert page.data["result"] == str(result)


@pytest.mark.parametrize("form", ["parquet", "arrow", "stream"])
def test_with_the_original_numbers_are_those_of_compare(
    model: Path, result: Path, tmp_path: Path, form: str
) -> None:
    table = pq.read_table(result).drop_columns(METRICS)
    path = written(table, tmp_path, f"result.{form}")
    page = report(path, tmp_path, "--original", model, "--threads", 2)
    errors = compare(read_weights(model), table).to_pylist()
    for layer, error in zip(page.data["layers"], errors, strict=True):
        decibels = error.pop("signal_to_noise_db")
        assert layer["signal_to_noise_db"] == pytest.approx(decibels, rel=1e-12)
        assert {name: layer[name] for name in error} == error
    shown = json.loads(succeeded("compare", model, path, "--json"))["totals"]
    assert page.data["totals"]["relative_error"] == pytest.approx(shown["relative_error"])
    assert page.data["left_out"] == shown["missing"] == ["left.weight"]
    printed = json.loads(
        succeeded("report", path, "--html", tmp_path / "other.html", "--original", model, "--json")
    )
    assert printed == {
        "destination": str(tmp_path / "other.html"),
        **page.data["totals"],
        "bytes": (tmp_path / "other.html").stat().st_size,
    }


def test_totals_without_the_original_are_the_same(
    model: Path, result: Path, tmp_path: Path
) -> None:
    measured = report(result, tmp_path, "--original", model).data
    own = report(result, tmp_path).data
    assert own["totals"] == pytest.approx(measured["totals"])


def test_tables(result: Path, tmp_path: Path) -> None:
    page = report(result, tmp_path)
    layers = page.data["layers"]
    titles, *rows = page.tables["all"]
    column = {title.strip(): i for i, title in enumerate(titles)}
    assert [row[0] for row in rows] == [layer["layer_name"] for layer in layers]
    squared = [layer["mse"] * layer["weights"] for layer in layers]
    for row, layer, error in zip(rows, layers, squared, strict=True):
        assert len(row) == len(titles)
        assert row[column["shape"]] == "x".join(map(str, layer["shape"]))
        assert int(row[column["bits"]]) == layer["bit_width"]
        assert row[column["group"]] == str(layer["group_size"]).replace("-1", "row")
        assert numbers(row[column["relative error"]]) == pytest.approx(
            layer["relative_error"], abs=1e-5
        )
        assert numbers(row[column["SNR, dB"]]) == pytest.approx(
            layer["signal_to_noise_db"], abs=0.06
        )
        share = numbers(row[column["% of squared error"]])
        assert share == pytest.approx(100 * error / sum(squared), abs=0.006)
    worst = sorted(layers, key=lambda layer: -layer["relative_error"])
    assert [row[0] for row in page.tables["worst"][1:]] == [one["layer_name"] for one in worst]
    widths = {row[0]: row for row in page.tables["widths"][1:]}
    assert list(widths) == ["3", "4", "5", "8", "all"]
    for width, row in widths.items():
        group = [one for one in layers if width in ("all", str(one["bit_width"]))]
        assert numbers(row[1]) == len(group)
        assert numbers(row[2]) == sum(one["weights"] for one in group)
    for text in ("mse", "by layer", "whole rows", "pyarrowquant 0."):
        assert text in page.text


def test_charts(result: Path, tmp_path: Path) -> None:
    page = report(result, tmp_path)
    layers = page.data["layers"]
    overview = page.charts["overview"]["data"]
    points = {(trace["name"], trace["yaxis"]): trace for trace in overview}
    for width in {layer["bit_width"] for layer in layers}:
        group = [(i, one) for i, one in enumerate(layers, 1) if one["bit_width"] == width]
        for axis, field in (("y", "relative_error"), ("y2", "bits_per_weight")):
            trace = points[f"{width} bits", axis]
            assert trace["x"] == [i for i, _ in group]
            assert trace["y"] == [layer[field] for _, layer in group]
            assert all(
                one["layer_name"] in text and f"{one['relative_error']:.5f}" in text
                for text, (_, one) in zip(trace["hovertext"], group, strict=True)
            )
    (shares,) = page.charts["weights-by-width"]["data"]
    assert sum(shares["y"]) == pytest.approx(100)
    sizes = page.charts["sizes"]["data"]
    assert [trace["name"] for trace in sizes] == ["codes", "scales", "zero-points"]
    together = sum(sum(trace["y"]) for trace in sizes)
    assert page.charts["sizes"]["layout"]["yaxis"]["title"]["text"] == "kB"
    assert together == pytest.approx(sum(layer["bytes"] for layer in layers) / 1000)


def in_code_units(row: dict[str, Any], weights: np.ndarray) -> np.ndarray:
    """weight / scale + zero_point, weight by weight."""
    rows = row["shape"][0] if len(row["shape"]) > 1 else 1
    matrix = np.asarray(weights, np.float32).reshape(rows, -1)
    group = matrix.shape[1] if row["group_size"] == -1 else row["group_size"]
    scales = np.float32(row["scales"]).reshape(rows, -1).repeat(group, 1)[:, : matrix.shape[1]]
    zeros = np.float32(row["zero_points"]).reshape(rows, -1).repeat(group, 1)
    return matrix / scales + zeros[:, : matrix.shape[1]]


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet", ".arrow"])
def test_histograms(
    model: Path, result: Path, weights: dict[str, np.ndarray], tmp_path: Path, suffix: str
) -> None:
    source = model
    if suffix != ".safetensors":  # lists of float64
        widened = {name: array.astype(np.float64) for name, array in weights.items()}
        columns = {
            "layer_name": list(widened),
            "weights": [array.ravel() for array in widened.values()],
            "shape": [list(array.shape) for array in widened.values()],
        }
        source = tmp_path / f"source{suffix}"
        write_table(pa.table(columns), source)
    page = report(result, tmp_path, "--original", source)
    table = pq.read_table(result)
    decoded = dequantize_batch_arrow(table)["weights"].to_pylist()
    rows = {row["layer_name"]: (row, d) for row, d in zip(table.to_pylist(), decoded, strict=True)}
    worst = [row[0] for row in page.tables["worst"][1:]]
    assert len([name for name in page.charts if name.startswith("histogram")]) == len(worst)
    for i, name in enumerate(worst):
        row, values = rows[name]
        bars, line = page.charts[f"histogram-{i}"]["data"]
        codes = np.rint(in_code_units(row, np.array(values))).astype(int).ravel()
        levels = 2 ** row["bit_width"]
        assert bars["x"] == list(range(levels))
        assert bars["y"] == pytest.approx(100 * np.bincount(codes, minlength=levels) / codes.size)
        units = in_code_units(row, weights[name])
        edges = np.array(line["x"])
        inside = np.clip(units, edges[0], edges[-1])
        counts = np.histogram(inside, edges)[0] / units.size / np.diff(edges)
        assert line["y"][:-1] == pytest.approx(100 * counts)
        clipped = 100 * np.mean((units < -0.5) | (units > levels - 0.5))
        assert f"clipped {clipped:.2f} %" in page.text


def test_histograms_without_the_original_are_of_codes(result: Path, tmp_path: Path) -> None:
    page = report(result, tmp_path)
    histograms = [chart for name, chart in page.charts.items() if name.startswith("histogram")]
    assert len(histograms) == 4
    for chart in histograms:
        (bars,) = chart["data"]
        assert sum(bars["y"]) == pytest.approx(100)
    assert "clipped" in page.text
    assert "clipped 0" not in page.text


def test_only_the_worst_have_histograms(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {f"{i:02}": rng.standard_normal((4, 64), np.float32) for i in range(30)}
    table = numpy_to_arrow_table(weights)
    result = quantize_batch_arrow(table, metrics=True)
    page = report(written(result, tmp_path), tmp_path)
    order = np.argsort(-result["relative_error"].to_numpy(), kind="stable")
    names = [result["layer_name"][int(i)].as_py() for i in order]
    assert [row[0] for row in page.tables["worst"][1:]] == names[:20]
    captions = [line.strip() for line in page.text.splitlines() if line.strip() in names]
    assert captions == names[:6]


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
    assert "no file of results" in failed("report", model, "--html", page)
    assert "does not exist" in failed("report", tmp_path / "nope.parquet", "--html", page)
    empty = written(table.slice(0, 0), tmp_path, "empty.arrow")
    assert "has no layers" in failed("report", empty, "--html", page)
    assert "--html" in failed("report", result, code=2)
    assert "is a folder" in failed("report", result, "--html", tmp_path, code=2)
    assert "no/report.html" not in failed("report", result, "--html", tmp_path / "no" / "r.html")
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
    assert "pip install pyarrowquant[report]" in error
    assert names_in(tmp_path) == []
