"""fp8 with scales that rows share: where it is said, what it costs, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli.report.pages import Page
from commands import run
from conftest import plain_layers
from safetensors.numpy import save_file

import pyarrowquant
from encoded.material import check_errors
from pyarrowquant import Recipe, Rule, convert, dequantize_batch_arrow, plan, quantize_batch_arrow

RNG = np.random.default_rng(0)
LAYERS = {
    "model.a.weight": RNG.standard_normal((150, 300), np.float32),
    "model.b.weight": RNG.standard_t(3, (16, 512)).astype(np.float32),
}
TABLE = plain_layers(LAYERS)
SHARED = ("tensor", "block")
each_shared = pytest.mark.parametrize("shared", SHARED)
SCALES = {"tensor": [1, 1], "block": [6, 4]}  # of the layers


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(LAYERS, path)
    return path


@each_shared
def test_wherever_it_is_said_it_is_the_same(shared: str) -> None:
    wanted = quantize_batch_arrow(TABLE, encoding="fp8", group_size=shared)
    said: dict[str, Any] = {"encoding": "fp8", "group_size": shared}
    size = {"group_size": shared}
    recipes: list[tuple[Recipe, dict[str, Any]]] = [
        (Recipe(default=said), {}),
        (Recipe([Rule("*", **said)]), {}),
        (Recipe([Rule("*", group_size=shared)], default={"encoding": "fp8"}), {}),
        (Recipe([Rule("*", group_size=shared)]), {"encoding": "fp8"}),
        (Recipe(default=size), {"encoding": "fp8"}),
    ]
    for recipe, options in recipes:
        for again in (
            recipe,
            Recipe.from_dict(recipe.to_dict()),
            Recipe.from_json(recipe.to_json()),
            Recipe.from_yaml(recipe.to_yaml()),
        ):
            assert again == recipe
            assert quantize_batch_arrow(TABLE, recipe=again, **options).equals(wanted)
    stream = pyarrowquant.quantize_stream(TABLE, encoding="fp8", group_size=shared)
    assert stream.read_all().combine_chunks().equals(wanted.combine_chunks())
    found = pyarrowquant.quantize_batch(LAYERS, encoding="fp8", group_size=shared)
    assert [layer["super_scales"].size for layer in found.values()] == SCALES[shared]


@each_shared
def test_a_rule_of_another_encoding_has_its_own_groups(shared: str) -> None:
    recipe = Recipe(
        [Rule("*a*", encoding="int"), Rule("*b*", encoding="q4_k")],
        default={"encoding": "fp8", "group_size": shared},
    )
    for options in ({}, {"encoding": "fp8", "group_size": shared}):
        result = quantize_batch_arrow(TABLE, recipe=recipe, **options)
        assert result["encoding"].to_pylist() == ["int", "q4_k"]
        assert result["group_size"].to_pylist() == [128, 32]
        assert result["super_scales"][0].as_py() is None


@each_shared
def test_only_fp8_has_it(shared: str) -> None:
    said = rf"group_size '{shared}' contradicts encoding '{{}}'"
    for name in ("int", "q4_k", "mxfp8", "nvfp4"):
        for call in (
            lambda name=name: quantize_batch_arrow(TABLE, encoding=name, group_size=shared),
            lambda name=name: Rule("a", encoding=name, group_size=shared),
            lambda name=name: Recipe([Rule("a", group_size=shared)], default={"encoding": name}),
            lambda name=name: Recipe.fit(TABLE, 9, [{"encoding": name, "group_size": shared}]),
        ):
            with pytest.raises(ValueError, match=said.format(name)):
                call()
    for call in (
        lambda: quantize_batch_arrow(TABLE, group_size=shared),
        lambda: quantize_batch_arrow(TABLE, recipe=Recipe(default={"group_size": shared})),
    ):
        with pytest.raises(ValueError, match=said.format("int") + ".*Use encoding 'fp8'"):
            call()


@pytest.mark.parametrize("wrong", ["row", "Block", "", "128"])
def test_other_names_are_refused(wrong: str) -> None:
    for call in (
        lambda: quantize_batch_arrow(TABLE, encoding="fp8", group_size=wrong),
        lambda: Rule("a", group_size=wrong),
        lambda: Recipe.from_dict({"default": {"group_size": wrong}}),
    ):
        with pytest.raises(TypeError, match=r"group_size must be an int, 'tensor' or 'block'"):
            call()


@each_shared
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_budget_counts_a_scale_a_tensor_or_block(shared: str, dtype: str) -> None:
    candidate = {"encoding": "fp8", "group_size": shared, "scale_dtype": dtype}
    weights = sum(array.size for array in LAYERS.values())
    scale_bits = {"float32": 32, "bfloat16": 16}[dtype]
    bits = (8 * weights + scale_bits * sum(SCALES[shared])) / weights
    recipe = Recipe.fit(TABLE, bits, [candidate])
    assert recipe.expected is not None
    assert recipe.expected.bits_per_weight == bits
    with pytest.raises(ValueError, match="Invalid bits_per_weight"):
        Recipe.fit(TABLE, bits - 1e-5, [candidate])
    again = Recipe.from_json(recipe.to_json())
    result = quantize_batch_arrow(TABLE, recipe=again, metrics=True)
    assert [len(cell) for cell in result["super_scales"].to_pylist()] == SCALES[shared]
    squared = sum(
        error * array.size
        for error, array in zip(result["mse"].to_pylist(), LAYERS.values(), strict=True)
    )
    assert squared == pytest.approx(recipe.expected.squared_error)


@each_shared
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_commands(shared: str, kind: str, source: Path, tmp_path: Path) -> None:
    file = tmp_path / f"out.{kind}"
    said = ["--encoding", "fp8", "--group-size", shared]
    done = run("quantize", source, file, *said, "--json")
    assert done.exit_code == 0, done.stderr
    inspected = json.loads(run("inspect", file, "--json").stdout)
    assert [layer["group_size"] for layer in inspected["layers"]] == [shared] * 2
    bits = 8 * sum(layer["bytes"] for layer in inspected["layers"]) / inspected["weights"]
    assert json.loads(done.stdout)["bits_per_weight"] == bits
    check_errors(source, file, json.loads(done.stdout)["relative_error"])


def test_wrong_sizes_of_the_command(source: Path, tmp_path: Path) -> None:
    for wrong in ("rows", "1.5", ""):
        done = run("quantize", source, tmp_path / "x.parquet", "--group-size", wrong)
        assert done.exit_code == 2
        assert "is not a whole number, 'tensor' or 'block'" in done.stderr
    done = run("quantize", source, tmp_path / "x.parquet", "--group-size", "block")
    assert done.exit_code in (1, 2)
    assert "contradicts encoding 'int'" in done.stderr


@each_shared
def test_plans_and_bytes_of_files(shared: str, source: Path, tmp_path: Path) -> None:
    said: dict[str, Any] = {"encoding": "fp8", "group_size": shared}
    planned = plan(source, tmp_path / "x.parquet", **said)
    assert [layer.settings and layer.settings.group_size for layer in planned.layers] == (
        [shared] * 2
    )
    recipe = tmp_path / "recipe.json"
    Recipe([Rule("*b*", encoding="nf4")], default=said).save(recipe)
    text = run("quantize", source, tmp_path / "x.parquet", "--recipe", recipe, "--dry-run").stdout
    what = {"tensor": "one group a layer", "block": "blocks of 128x128"}[shared]
    assert f"1 with 8 bits of fp8 in {what}" in text
    assert "1 with 4 bits of nf4 in groups of 64" in text
    file = tmp_path / "out.parquet"
    done = convert(source, file, recipe=recipe)
    table = pq.read_table(file)
    stored = sum(len(data) for data in table["quantized_data"].to_pylist())
    floats = ("scales", "levels", "super_scales")
    stored += 4 * sum(len(cell or []) for name in floats for cell in table[name].to_pylist())
    assert done.bits_per_weight == 8 * stored / done.weights
    again = tmp_path / "again.parquet"
    convert(source, again, recipe=recipe, resume=True)
    assert file.read_bytes() == again.read_bytes()


@each_shared
def test_reports(shared: str, source: Path, tmp_path: Path) -> None:
    file, page = tmp_path / "out.parquet", tmp_path / "page.html"
    convert(source, file, encoding="fp8", group_size=shared)
    done = run("report", file, "--html", page, "--original", source)
    assert done.exit_code == 0, done.stderr
    text = Page(page).text
    assert {"tensor": "whole tensors", "block": "blocks"}[shared] in text
    assert f"{shared} fp8" in str(Page(page).tables)


def test_rows_of_all_kinds_stand_in_one_table() -> None:
    sizes: list[int | str] = [-1, 64, 128, *SHARED]
    results = [
        quantize_batch_arrow(
            TABLE.set_column(0, "layer_name", [[f"{size} {i}" for i in range(2)]]),
            encoding="fp8",
            group_size=size,
        )
        for size in sizes
    ]
    mixed = pa.concat_tables(results).combine_chunks()
    decoded = dequantize_batch_arrow(mixed)
    for i, result in enumerate(results):
        alone = dequantize_batch_arrow(result)
        assert decoded.slice(2 * i, 2).combine_chunks().equals(alone.combine_chunks())
    assert [cell is None for cell in mixed["super_scales"].to_pylist()] == [True] * 6 + [False] * 4
