"""The other commands, their help, and progress."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import failed, run, succeeded
from safetensors.numpy import load_file

from cli.outputs import read
from pyarrowquant import Recipe, compare, dequantize_batch_arrow, numpy_to_arrow_table


def test_inspect(model: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    text = succeeded("inspect", model)
    assert "model.position_ids" in text
    assert "I64" in text
    layers = json.loads(succeeded("inspect", model, "--json"))["layers"]
    sizes = {layer["layer_name"]: layer["bytes"] for layer in layers}
    assert {name: sizes[name] for name in weights} == {n: w.nbytes for n, w in weights.items()}
    out = tmp_path / "out.parquet"
    succeeded("quantize", model, out, "--recipe", "all")
    shown = json.loads(succeeded("inspect", out, "--json"))
    assert [layer["bit_width"] for layer in shown["layers"]] == [4] * 4
    assert shown["weights"] == sum(w.size for w in weights.values())
    assert "bits a weight" in succeeded("inspect", out)


def test_a_row_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.parquet"
    weights = pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float32()))
    pq.write_table(pa.table({"layer_name": ["a", None], "weights": weights}), path)
    for options in ([], ["--json"]):
        error = failed("inspect", path, *options)
        assert f"{path}'" in error
        assert "Layer in row 1: layer_name is null" in error


def test_a_table_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "weights.parquet"
    weights = pa.array([], pa.list_(pa.float32()))
    pq.write_table(pa.table({"layer_name": pa.array([], pa.string()), "weights": weights}), path)
    error = failed("quantize", path, tmp_path / "out.parquet")
    assert "no layer was quantized: there is none, " in error


def test_compare_and_dequantize(
    model: Path, weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    out, decoded = tmp_path / "out.parquet", tmp_path / "decoded.arrow"
    succeeded("quantize", model, out, "--recipe", "all")
    succeeded("dequantize", out, decoded)
    assert read(decoded).to_pylist() == dequantize_batch_arrow(read(out)).to_pylist()
    errors = compare(numpy_to_arrow_table(weights), read(out)).to_pylist()
    for result in (out, decoded):
        shown = json.loads(succeeded("compare", model, result, "--json"))
        assert shown["layers"] == errors
    assert shown["totals"]["layers"] == 4
    worst = max(errors, key=lambda layer: layer["relative_error"])
    text = succeeded("compare", model, out, "--worst", 1)
    assert text.splitlines()[1].split()[0] == worst["layer_name"]
    assert "relative error 0.00000" in succeeded("compare", out, decoded)
    for dtype in ("float32", "float16"):
        file = tmp_path / f"{dtype}.safetensors"
        succeeded("dequantize", out, file, "--dtype", dtype)
        rows = dequantize_batch_arrow(read(out), dtype=dtype).to_pylist()
        tensors = load_file(file)
        assert set(tensors) == {row["layer_name"] for row in rows}
        for row in rows:
            tensor = tensors[row["layer_name"]]
            assert tensor.dtype == dtype
            assert np.array_equal(tensor, np.reshape(row["weights"], row["shape"]))
    assert "has nothing that is quantized" in failed("dequantize", decoded, tmp_path / "x.arrow")
    assert "exists" in failed("dequantize", out, decoded)


def test_recipe_commands(model: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    shown = succeeded("recipe", "show", "text-local")
    assert Recipe.from_json(shown) == Recipe.preset("text", "local")
    assert succeeded("recipe", "show", "text-local", "--json") == shown
    assert "exclude" in failed("recipe", "show", "text", "--json", "--yaml", code=2)
    shown = succeeded("recipe", "show", "cloud", "--yaml")
    assert Recipe.from_yaml(shown) == Recipe.profile("cloud")
    fitted = tmp_path / "fitted.json"
    fit = ["recipe", "fit", model, fitted, "--bits-per-weight", 5]
    assert "bits a weight" in succeeded(*fit)
    recipe = Recipe.fit(numpy_to_arrow_table(weights), 5)
    assert Recipe.load(fitted) == recipe
    assert "exists" in failed(*fit)
    assert recipe.expected is not None
    assert json.loads(succeeded(*fit, "--overwrite", "--json")) == {
        "destination": str(fitted),
        "bits_per_weight": recipe.expected.bits_per_weight,
        "relative_error": recipe.expected.relative_error,
    }


def test_recipe_fit_chooses_among_bits_and_encodings(
    model: Path, weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    fitted = tmp_path / "fitted.json"
    fit = ["recipe", "fit", model, fitted, "--bits-per-weight", 5, "--candidate"]
    succeeded(*fit, "8", "--candidate", "NF4", "--candidate", "nvfp4")
    candidates = [{"bit_width": 8}, {"encoding": "nf4"}, {"encoding": "nvfp4"}]
    chosen, expected = (
        {name: recipe.settings_of(name, array.shape) for name, array in weights.items()}
        for recipe in (
            Recipe.load(fitted),
            Recipe.fit(numpy_to_arrow_table(weights), 5, candidates),
        )
    )
    assert chosen == expected
    assert "'7' is not one of '2'" in failed(*fit, "7", "--overwrite", code=2)


@pytest.mark.parametrize("scheme", ["NVFP4A16", "FP8_BLOCK"])
def test_recipe_fit_takes_bits_for_those_of_evenly_spaced_codes(
    tmp_path: Path, scheme: str
) -> None:
    model, fitted = tmp_path / "model.npz", tmp_path / "fitted.json"
    np.savez(model, **{"up_proj.weight": np.random.default_rng(0).standard_normal((128, 512))})
    succeeded(
        *("recipe", "fit", model, fitted, "--bits-per-weight", 4.4, "--recipe", scheme),
        *("--candidate", "4"),
    )
    assert Recipe.load(fitted).settings_of("up_proj.weight", (128, 512)) == {
        "bit_width": 4,
        "group_size": 128,
        "method": "mse",
    }


def test_help_shows_examples() -> None:
    for command in ("quantize", "inspect", "compare", "dequantize", "report"):
        assert f"  pyarrowquant {command} " in succeeded(command, "--help")
    assert "quantize" in succeeded("--help")


def test_progress_is_plain_lines_where_there_is_no_terminal(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrowquant.cli._progress._SECONDS_BETWEEN_LINES", 0)
    result = run("quantize", model, tmp_path / "out.parquet")
    lines = result.stderr.splitlines()
    assert lines
    assert all(line.startswith("quantize: ") and re.search(r"\d layers?, ", line) for line in lines)


def test_progress_is_json_beside_json(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrowquant.cli._progress._SECONDS_BETWEEN_LINES", 0)
    result = run("quantize", model, tmp_path / "out.parquet", "--json")
    steps = [json.loads(line) for line in result.stderr.splitlines()]
    assert [step["layers"] for step in steps] == sorted(step["layers"] for step in steps)
    assert steps[-1]["layers"] == json.loads(result.stdout)["layers"]
    assert steps[-1]["what"] == "quantize"
    assert steps[-1]["bytes"] == steps[-1]["total"]
