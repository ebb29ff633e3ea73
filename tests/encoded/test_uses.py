"""Budgets, floors, streams, commands and formats with encodings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli.report.pages import Page
from commands import run
from conftest import plain_layers
from safetensors.numpy import save_file

from encoded.fixed import FIXED
from encoded.material import check_errors
from pyarrowquant import (
    Recipe,
    Rule,
    convert,
    dequantize_batch_arrow,
    plan,
    quantize_batch_arrow,
    quantize_stream,
)
from pyarrowquant.errors import UsageError
from pyarrowquant.formats import write_gguf, write_onnx

RNG = np.random.default_rng(0)
LAYERS = {
    "model.a.weight": RNG.standard_normal((16, 512), np.float32),
    "model.b.weight": RNG.standard_t(3, (16, 512)).astype(np.float32),
}
TABLE = plain_layers(LAYERS)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(LAYERS, path)
    return path


@pytest.mark.parametrize("name", FIXED)
def test_a_budget_counts_what_an_encoding_stores(name: str) -> None:
    fixed = FIXED[name]
    columns = 4 * fixed.columns
    weights = RNG.standard_normal((8, columns), np.float32)
    candidate = {"encoding": name, **({"group_size": 64} if name == "fp8" else {})}
    bits = 8 * (fixed.block_bytes * 4 * 8 + (4 if name == "nvfp4" else 0)) / weights.size
    recipe = Recipe.fit(plain_layers({"w": weights}), bits, [candidate])
    assert recipe.expected is not None
    assert recipe.expected.bits_per_weight == bits
    with pytest.raises(ValueError, match="Invalid bits_per_weight"):
        Recipe.fit(plain_layers({"w": weights}), bits - 1e-4, [candidate])


def test_rows_that_end_in_short_blocks_count_whole_ones_of_their_own() -> None:
    weights = plain_layers({"w": RNG.standard_normal((2, 300), np.float32)})
    recipe = Recipe.fit(weights, 20, [{"encoding": "q4_k"}])
    assert recipe.expected is not None
    # two super-blocks, ten groups
    assert recipe.expected.bits_per_weight == (150 * 8 + 10 * 12 + 2 * 32) / 300


def test_candidates_mix_encodings() -> None:
    candidates: list[dict[str, Any]] = [
        {"encoding": "q2_k"},
        {"encoding": "q6_k"},
        {"bit_width": 4},
    ]
    recipe = Recipe.fit(TABLE, 4.6, candidates)
    again = Recipe.from_json(recipe.to_json())
    result = quantize_batch_arrow(TABLE, recipe=again, metrics=True)
    assert set(result["encoding"].to_pylist()) <= {"q2_k", "q6_k", "int"}
    squared = sum(
        error * array.size
        for error, array in zip(result["mse"].to_pylist(), LAYERS.values(), strict=True)
    )
    assert recipe.expected is not None
    assert squared == pytest.approx(recipe.expected.squared_error)
    assert recipe.expected.bits_per_weight <= 4.6


FAMILIES = [
    ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"],
    ["iq4_xs", "iq4_nl", "q5_k", "q6_k"],
    ["nf4", "fp8"],
    ["nvfp4", "fp8"],
    ["mxfp4", "mxfp8"],
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_a_floor_takes_the_next_wider_of_the_family(family: list[str]) -> None:
    errors = {
        name: quantize_batch_arrow(TABLE, encoding=name, method="mse", metrics=True)
        for name in family
    }
    for wanted in family:
        floor = {"relative_error": max(errors[wanted]["relative_error"].to_pylist())}
        result = quantize_batch_arrow(
            TABLE, encoding=family[0], method="mse", quality_floor=floor, metrics=True
        )
        for name, error in zip(
            result["encoding"].to_pylist(), result["relative_error"].to_pylist(), strict=True
        ):
            assert family.index(name) <= family.index(wanted)
            assert error <= floor["relative_error"]
        assert wanted in result["encoding"].to_pylist()
        stream = quantize_stream(
            TABLE, encoding=family[0], method="mse", quality_floor=floor, metrics=True
        )
        assert stream.schema.metadata == result.schema.metadata
        assert stream.read_all().drop("levels").equals(result.drop("levels"))


def test_a_floor_beyond_the_family_is_told() -> None:
    with pytest.warns(UserWarning, match="with 6 bits of encoding 'q6_k', the most there are"):
        quantize_batch_arrow(TABLE, encoding="q5_k", quality_floor={"relative_error": 1e-6})


def test_streams_of_rules_give_what_tables_give() -> None:
    recipe = Recipe([Rule("*a*", encoding="q4_k")], default={"bit_width": 3})
    stream = quantize_stream(TABLE.to_reader(max_chunksize=1), recipe=recipe)
    assert stream.read_all().combine_chunks().equals(quantize_batch_arrow(TABLE, recipe=recipe))


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_commands(name: str, kind: str, source: Path, tmp_path: Path) -> None:
    file = tmp_path / f"out.{kind}"
    done = run("quantize", source, file, "--encoding", name, "--json")
    assert done.exit_code == 0, done.stderr
    inspected = json.loads(run("inspect", file, "--json").stdout)
    layers = inspected["layers"]
    assert [layer["encoding"] for layer in layers] == [name] * 2
    assert [layer["bit_width"] for layer in layers] == [FIXED[name].bit_width] * 2
    bits = 8 * sum(layer["bytes"] for layer in layers) / inspected["weights"]
    assert json.loads(done.stdout)["bits_per_weight"] == bits
    assert name in run("inspect", file).stdout
    check_errors(source, file, json.loads(done.stdout)["relative_error"])


def test_bytes_of_files_are_those_of_their_columns(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    recipe = Recipe([Rule("*a*", encoding="q4_k"), Rule("*b*", encoding="nf4")])
    done = convert(source, file, recipe=recipe)
    table = pq.read_table(file)
    floats = ("scales", "zero_points", "levels", "super_scales", "super_minimums")
    stored = sum(len(data) for data in table["quantized_data"].to_pylist())
    stored += 4 * sum(len(cell or []) for name in floats for cell in table[name].to_pylist())
    assert done.bits_per_weight == 8 * stored / done.weights


def test_the_plan_names_encodings(source: Path, tmp_path: Path) -> None:
    planned = plan(source, tmp_path / "x.parquet", encoding="q6_k", recipe="text-local")
    assert [layer.settings and layer.settings.encoding for layer in planned.layers] == ["q6_k"] * 2
    text = run("quantize", source, tmp_path / "x.parquet", "--encoding", "nf4", "--dry-run").stdout
    assert "2 with 4 bits of nf4 in groups of 64" in text


HELD = {
    "compressed-tensors": ("mxfp4", "mxfp8", "nvfp4", "fp8"),
    "mlx": ("mxfp4", "mxfp8", "nvfp4"),
    "gguf": ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4"),
    "onnx": (),
    "bitsandbytes": ("nf4",),
}
# compressed-tensors wants a folder, and has tests of its own.
NOT_HELD = [(to, name) for to in ("mlx", "gguf", "onnx") for name in FIXED if name not in HELD[to]]


@pytest.mark.parametrize(("to", "name"), NOT_HELD)
def test_other_formats_refuse_encodings_before_any_work(
    to: str, name: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"to='{to}' holds encoding 'int'.*, and not '{name}'"):
        convert(source, tmp_path / "out", to=to, encoding=name)
    recipe = Recipe([Rule("*a*", encoding=name)])
    with pytest.raises(ValueError, match=rf"layer 'model.a.weight': encoding '{name}' must be"):
        convert(source, tmp_path / "out", to=to, recipe=recipe)
    done = run("quantize", source, tmp_path / "out", "--to", to, "--encoding", name)
    others = ["parquet", "arrow", *(to for to, held in HELD.items() if name in held)]
    listed = f"{', '.join(others[:-1])} and {others[-1]}"
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith(f"Error: --to {to} holds encoding 'int'")
    assert done.stderr.endswith(f"and not '{name}', which {listed} hold\n")
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("write", "name"),
    [(write_onnx, name) for name in FIXED]
    + [(write_gguf, name) for name in FIXED if name not in HELD["gguf"]],
)
def test_writers_refuse_layers_by_name(write: Any, name: str, tmp_path: Path) -> None:
    result = quantize_batch_arrow(TABLE, encoding=name)
    for data in (result, result.to_reader()):
        with pytest.raises(ValueError, match=rf"'model.b.weight': encoding '{name}' must be one"):
            write(data, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_is_contradicted_is_said_before_any_work(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    for option, value, text in (
        ("--bits", 4, "bit_width 4 contradicts encoding 'q6_k', which has 6 bits. Leave it out\n"),
        ("--group-size", 64, "group_size 64 contradicts encoding 'q6_k'"),
        ("--zero-point", "float", "zero_point 'float' contradicts encoding 'q6_k'"),
        ("--method", "hqq", "method 'hqq' contradicts encoding 'q6_k'"),
        ("--bits-per-weight", "nan", "Invalid bits_per_weight: nan. Must be a finite number"),
    ):
        encoding = () if option == "--bits-per-weight" else ("--encoding", "q6_k")
        for to in ("parquet", "gguf"):
            done = run("quantize", source, out, "--to", to, *encoding, option, value)
            assert (done.exit_code, text in done.stderr) == (2, True), done.stderr
    recipe = tmp_path / "wider.json"
    Recipe([Rule("*", bit_width=8)]).save(recipe)
    done = run("quantize", source, out, "--encoding", "q6_k", "--recipe", recipe)
    assert done.exit_code == 2
    assert done.stderr.endswith("Leave it out, or say encoding 'int' with it\n")
    with pytest.raises(UsageError, match="bits_per_weight= fits bit widths, and encoding='q6_k'"):
        convert(source, out, encoding="q6_k", bits_per_weight=5)
    with pytest.raises(UsageError, match="encoding 'q8' must be one of 'int', 'q2_k'"):
        convert(source, out, encoding="q8")
    assert not out.exists()


def test_a_run_goes_on_only_with_its_encoding(source: Path, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole.parquet", tmp_path / "resumed.parquet"
    convert(source, whole, encoding="q4_k")
    convert(source, resumed, encoding="q4_k", resume=True)
    assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.parametrize("name", ["q4_k", "nf4", "mxfp8", "nvfp4"])
def test_reports_draw_levels(name: str, source: Path, tmp_path: Path) -> None:
    file, page = tmp_path / "out.parquet", tmp_path / "page.html"
    convert(source, file, encoding=name)
    assert run("report", file, "--html", page, "--original", source).exit_code == 0
    read = Page(page)
    table = pq.read_table(file)
    decoded = dequantize_batch_arrow(table)["weights"].to_pylist()
    worst = int(np.argmax(table["relative_error"].to_numpy()))
    levels = np.unique(table["levels"][worst].as_py() or np.arange(16.0))
    levels = levels[np.isfinite(levels)]
    bars = read.charts["histogram-0"]["data"][0]
    assert bars["x"] == pytest.approx(levels)
    scales, zeros = (
        np.array(table[column][worst].as_py() or [0.0] * len(table["scales"][worst]))
        for column in ("scales", "zero_points")
    )
    size = table["group_size"][worst].as_py()
    units = np.array(decoded[worst]).reshape(-1, size) / scales[:, None] + zeros[:, None]
    nearest = abs(units.ravel()[:, None] - levels).argmin(axis=1)
    shares = 100 * np.bincount(nearest, minlength=len(levels)) / nearest.size
    assert bars["y"] == pytest.approx(shares)
    assert name in read.text
