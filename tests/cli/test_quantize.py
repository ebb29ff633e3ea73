"""`pyarrowquant quantize` into tables, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import failed, run, succeeded
from safetensors.numpy import save_file

from cli.outputs import by_name, expected, names_in, read
from pyarrowquant import Recipe, Rule, numpy_to_arrow_table
from pyarrowquant.formats.registry import FORMATS


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out.feather"])
def test_quantize(model: Path, weights: dict[str, np.ndarray], tmp_path: Path, name: str) -> None:
    text = succeeded("quantize", model, tmp_path / name, "--recipe", "all")
    assert by_name(read(tmp_path / name)) == expected(weights)
    assert "4 layers, 29,760 weights" in text
    assert names_in(tmp_path) == sorted(["model.safetensors", name])


def test_settings(model: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out.arrow"
    settings = ["--bits", 3, "--group-size", 32, "--method", "rtn", "--zero-point", "symmetric"]
    settings += ["--recipe", "all"]
    succeeded("quantize", model, out, "--to", "arrow", *settings, "--scale-dtype", "float16")
    table = pa.ipc.open_file(out).read_all()
    assert by_name(table) == expected(
        weights,
        bit_width=3,
        group_size=32,
        method="rtn",
        zero_point="symmetric",
        scale_dtype="float16",
    )


def test_recipes_floors_and_budgets(
    model: Path, weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    succeeded("quantize", model, out, "--recipe", "text-edge")
    assert by_name(read(out)) == expected(weights, recipe=Recipe.preset("text", "edge"))
    recipe = Recipe([Rule("*up_proj*", bit_width=8)], default={"bit_width": 5})
    recipe.save(tmp_path / "mine.yaml")
    succeeded("quantize", model, out, "--recipe", tmp_path / "mine.yaml", "--overwrite")
    assert by_name(read(out)) == expected(weights, recipe=recipe)
    floor = {"relative_error": 0.07, "cosine": 0.9}
    text = "relative_error=0.07,cosine=0.9"
    succeeded("quantize", model, out, "--quality-floor", text, "--overwrite", "--recipe", "all")
    assert by_name(read(out)) == expected(weights, quality_floor=floor)
    succeeded("quantize", model, out, "--bits-per-weight", 4.6, "--overwrite", "--recipe", "text")
    fitted = Recipe.fit(
        numpy_to_arrow_table(weights),
        4.6,
        recipe=Recipe.preset("text"),
        bits_of=FORMATS["parquet"].stored_bits,
    )
    assert by_name(read(out)) == expected(weights, recipe=fitted)


def test_json_has_the_totals(model: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    summary = json.loads(succeeded("quantize", model, out, "--json", "--recipe", "all"))
    rows = expected(weights).values()
    squared = sum(row["mse"] * np.prod(row["shape"]) for row in rows)
    norm = sum(np.square(w.astype(np.float64)).sum() for w in weights.values())
    stored = sum(len(row["quantized_data"]) + 8 * len(row["scales"]) for row in rows)
    assert summary["layers"] == 4
    assert summary["relative_error"] == pytest.approx(np.sqrt(squared / norm))
    assert summary["bits_per_weight"] == pytest.approx(8 * stored / summary["weights"])
    assert summary["bytes"] == out.stat().st_size


def test_failing_layers(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    model, out = tmp_path / "model.npz", tmp_path / "out.parquet"
    np.savez(model, bad=np.array([[np.nan]], np.float32), **weights)
    error = failed("quantize", model, out)
    assert error.startswith("Error: Layer 'bad' contains NaN or Inf at index 0 (NaN)")
    assert names_in(tmp_path) == ["model.npz"]
    result = run("quantize", model, out, "--continue-on-error", "--json", "--recipe", "all")
    assert result.exit_code == 0
    assert result.stderr.startswith("Skipped: Layer 'bad' contains NaN")
    assert len(json.loads(result.stdout)["skipped"]) == 1
    assert by_name(read(out)) == expected(weights)


def test_dry_run_writes_nothing(model: Path, tmp_path: Path) -> None:
    plan = ["quantize", model, tmp_path / "out.parquet", "--dry-run", "--recipe", "text"]
    assert "2 of 4 layers would be quantized" in succeeded(*plan)
    layers = json.loads(succeeded(*plan, "--json"))["layers"]
    assert [layer["settings"] is None for layer in layers].count(True) == 2
    failed(*plan, "--method", "awq", code=2)
    failed(*plan, "--group-size", 7, code=2)
    assert names_in(tmp_path) == ["model.safetensors"]


def test_what_is_refused(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    out.write_text("mine")
    assert "'--overwrite'" not in failed("quantize", model, out)
    assert out.read_text() == "mine"
    assert "is a folder" in failed("quantize", model, tmp_path, "--to", "gguf", code=2)
    assert "--to" in failed("quantize", model, tmp_path / "out.txt", code=2)
    assert "does not exist" in failed("quantize", model, tmp_path / "no" / "out.arrow", code=2)
    assert "nope" in failed("quantize", tmp_path / "nope.safetensors", tmp_path / "o.arrow")
    wrong = ["quantize", model, tmp_path / "o.arrow"]
    assert "'awq' is not one of" in failed(*wrong, "--method", "awq", code=2)
    both = ["--bits", 4, "--bits-per-weight", 4]
    assert "exclude each other" in failed(*wrong, *both, code=2)
    error = failed(*wrong, "--recipe", tmp_path / "none.json")
    assert "none.json" in error
    Recipe(default="skip").save(tmp_path / "none.json")
    assert "No layer would be quantized" in failed(*wrong, "--recipe", tmp_path / "none.json")
    assert "Invalid group_size: 7" in failed(*wrong, "--group-size", 7, code=2)
    assert "'7'" in failed(*wrong, "--bits", 7, code=2)
    assert "Recipe 'lama' is no file" in failed(*wrong, "--recipe", "lama", code=2)
    assert "NAME=NUMBER" in failed(*wrong, "--quality-floor", "cosine=high", code=2)
    assert "smallest candidates" in failed(*wrong, "--bits-per-weight", 1, code=2)
    (tmp_path / "cut.safetensors").write_bytes(model.read_bytes()[:-1])
    assert "cut.safetensors" in failed("quantize", tmp_path / "cut.safetensors", wrong[2])
    assert "o.arrow" not in names_in(tmp_path)


def test_a_table_for_each_shard(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    halves = dict(list(weights.items())[:2]), dict(list(weights.items())[2:])
    for half, name in zip(halves, ("a", "b"), strict=True):
        save_file(half, source / f"{name}.safetensors")
    out = tmp_path / "out"
    succeeded("quantize", source, out, "--to", "parquet", "--recipe", "all")
    assert names_in(out) == ["a.parquet", "b.parquet"]
    for half, name in zip(halves, ("a", "b"), strict=True):
        assert by_name(read(out / f"{name}.parquet")) == expected(half)
    shown = json.loads(succeeded("inspect", out, "--json"))
    assert {layer["layer_name"] for layer in shown["layers"]} == set(weights)
    assert json.loads(succeeded("compare", source, out, "--json"))["totals"]["layers"] == 4
    succeeded("dequantize", out, tmp_path / "decoded.arrow")
    assert set(by_name(read(tmp_path / "decoded.arrow"))) == set(weights)
    assert "exists" in failed("quantize", source, out, "--to", "parquet")
    succeeded("quantize", source, out, "--to", "arrow", "--overwrite")
    assert names_in(out) == ["a.arrow", "b.arrow"]
    pa_table = read(out / "a.arrow")
    pq.write_table(pa_table, out / "z.parquet")
    assert f"row 0 of '{out / 'z.parquet'}'" in failed("compare", source, out)
    assert "other columns" in failed("inspect", _with_stranger(out))


def _with_stranger(folder: Path) -> Path:
    pq.write_table(pa.table({"quantized_data": [1]}), folder / "c.parquet")
    return folder


def test_batches_keep_to_a_size_of_memory(model: Path, tmp_path: Path) -> None:
    from pyarrowquant.conversion.memory import batch_bytes

    out = tmp_path / "out.parquet"
    for text in ("much", "5iB", "-1G", "130M"):
        failed("quantize", model, out, "--max-memory", text, code=2)
    succeeded("quantize", model, out, "--max-memory", "132MiB")
    assert pq.ParquetFile(out).num_row_groups == 1
    big = tmp_path / "big.safetensors"
    save_file({f"{k}.weight": np.ones((256, 1024), np.float32) for k in range(4)}, big)
    succeeded("quantize", big, out, "--max-memory", "0.143GB", "--overwrite")
    assert pq.ParquetFile(out).num_row_groups == 2
    assert batch_bytes(139_000_000) < 3 << 20


def test_quantized_models_are_decoded(llama: Path, tmp_path: Path) -> None:
    succeeded("quantize", llama, tmp_path / "mlx", "--to", "mlx")
    for options in (["--dry-run"], []):
        result = run("quantize", tmp_path / "mlx", tmp_path / "again.parquet", *options)
        assert result.exit_code == 0, result.output
        assert "Decoded from 4-bit MLX (4 layers)\n" in result.stdout
        assert "decoded first: 4 of 4-bit MLX" in result.stderr


def test_what_no_rule_decodes_is_refused(llama: Path, tmp_path: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (llama / "config.json").write_text(json.dumps(config))
    save_file({"up.qweight": np.ones((8, 64), np.int32)}, llama / "model.safetensors")
    error = failed("quantize", llama, tmp_path / "out.parquet")
    assert "is quantized already: its config.json has quantization_config" in error


def test_a_budget_counts_what_has_not_failed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal((64, 128), np.float32) for name in ("a", "b", "bad")}
    tensors["bad"][0, 0] = np.nan
    source, out = tmp_path / "m.safetensors", tmp_path / "o.parquet"
    save_file(tensors, source)
    options = ["--bits-per-weight", 4.2, "--continue-on-error", "--json"]
    succeeded("quantize", source, out, *options)
    bits = {name: row["bit_width"] for name, row in by_name(read(out)).items()}
    assert sum(bits.values()) <= 8
