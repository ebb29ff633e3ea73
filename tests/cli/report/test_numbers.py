"""The numbers, tables and charts of a page are those of the results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import succeeded
from models import write_table

from cli.report.reports import METRICS, report, written
from pyarrowquant import (
    compare,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch_arrow,
    read_weights,
)


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
    shown = json.loads(succeeded("compare", model, path, "--json", "--allow-missing"))["totals"]
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
        assert row[column["group or code"]] == str(layer["group_size"]).replace("-1", "row")
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
