"""Two results beside each other, blocks by kind, and the recipe that a page has."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import failed, succeeded
from safetensors.numpy import save_file

from cli.report.pages import Page
from cli.report.reports import HOSTILE, report, written
from pyarrowquant import Recipe, Rule, numpy_to_arrow_table, quantize_batch_arrow

BLOCKS = 3


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of blocks, and two results of it: of 4 bits, and of 3 with a layer less."""
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    tensors = {"embed.weight": rng.standard_normal((16, 64), np.float32)}
    for block in range(BLOCKS):
        for kind in ("attn.q_proj", "mlp.experts.0.up", "mlp.experts.1.up"):
            name = f"model.layers.{block}.{kind}.weight"
            tensors[name] = rng.standard_t(2 + block, (16, 64)).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    Recipe([Rule("embed*", skip=True)], {"bit_width": 3}).save(folder / "three.json")
    for name, recipe in (("four", "all"), ("three", folder / "three.json")):
        target = folder / f"{name}.parquet"
        succeeded("quantize", folder / "model.safetensors", target, "--recipe", recipe)
    return folder


@pytest.mark.parametrize("original", [True, False])
def test_two_results(blocks: Path, tmp_path: Path, original: bool) -> None:
    options = ["--original", blocks / "model.safetensors"] if original else []
    page = report(blocks / "four.parquet", tmp_path, blocks / "three.parquet", *options)
    one, other = (pq.read_table(blocks / f"{name}.parquet") for name in ("four", "three"))
    data = page.data
    assert [layer["bit_width"] for layer in data["other"]["layers"]] == [3] * (3 * BLOCKS)
    assert data["other"]["totals"]["layers"] == data["totals"]["layers"] - 1
    assert data["other"]["file_bytes"] == (blocks / "three.parquet").stat().st_size
    titles, *rows = page.tables["sides"]
    assert [row[0] for row in rows] == [str(blocks / f"{x}.parquet") for x in ("four", "three")]
    column = {title: number for number, title in enumerate(titles)}
    for row, side in zip(rows, (data, data["other"]), strict=True):
        assert row[column["relative error"]] == f"{side['totals']['relative_error']:.5f}"
        ratio = f"{data['original_bytes'] / side['file_bytes']:.2f}" if original else ""
        assert row[column["ratio"]] == ratio
    assert "1 layer only in" in page.text
    assert "embed.weight" in page.text
    errors = dict(
        zip(one["layer_name"].to_pylist(), one["relative_error"].to_pylist(), strict=True)
    )
    found = page.tables["beside"][1:]
    assert [row[0] for row in found] == other["layer_name"].to_pylist()
    for row, error in zip(found, other["relative_error"].to_pylist(), strict=True):
        assert float(row[1]) == pytest.approx(error / errors[row[0]], abs=0.006)
    traces = page.charts["beside"]["data"]
    assert [len(trace["x"]) for trace in traces] == [3 * BLOCKS] * 2
    assert traces[1]["y"] == pytest.approx(other["relative_error"].to_pylist())
    maps = [page.charts[name]["data"][0] for name in ("blocks", "blocks-beside")]
    assert maps[0]["zmin"] == maps[1]["zmin"] < maps[0]["zmax"] == maps[1]["zmax"]


def test_blocks_by_kind(blocks: Path, tmp_path: Path) -> None:
    page = report(blocks / "four.parquet", tmp_path)
    assert "sides" not in page.tables
    assert "blocks-beside" not in page.charts
    chart = page.charts["blocks"]
    heat = chart["data"][0]
    assert heat["x"] == list(range(BLOCKS))
    assert chart["layout"]["yaxis"]["ticktext"] == ["attn.q_proj", "mlp.experts.*.up"]
    layers = {layer["layer_name"]: layer for layer in page.data["layers"]}
    for block in range(BLOCKS):
        single = layers[f"model.layers.{block}.attn.q_proj.weight"]["relative_error"]
        assert heat["z"][0][block] == pytest.approx(math.log10(single))
        experts = [layers[f"model.layers.{block}.mlp.experts.{i}.up.weight"] for i in (0, 1)]
        together = math.hypot(*(e["norm"] * e["relative_error"] for e in experts)) / math.hypot(
            *(e["norm"] for e in experts)
        )
        assert heat["z"][1][block] == pytest.approx(math.log10(together))


def test_models_without_blocks_have_no_map(result: Path, tmp_path: Path) -> None:
    assert "blocks" not in report(result, tmp_path).charts


@pytest.mark.parametrize("encoding", [{}, {"encoding": "q4_k"}, {"encoding": "fp8"}])
def test_the_recipe_makes_the_same_result(
    blocks: Path, tmp_path: Path, encoding: dict[str, Any]
) -> None:
    recipe = Recipe(
        [
            Rule("embed*", bit_width=8, group_size=-1, encoding="int"),
            Rule("*.1.*q_proj*", skip=True),
        ],
        encoding or {"bit_width": 3, "group_size": 32},
    )
    recipe.save(tmp_path / "recipe.json")
    source = blocks / "model.safetensors"
    first, again = tmp_path / "first.arrow", tmp_path / "again.arrow"
    succeeded("quantize", source, first, "--recipe", tmp_path / "recipe.json")
    page = report(first, tmp_path)
    (tmp_path / "said.json").write_text(json.dumps(page.data["recipe"]))
    succeeded("quantize", source, again, "--recipe", tmp_path / "said.json")
    assert again.read_bytes() == first.read_bytes()
    rows = page.tables["used"][1:]
    assert sorted(int(row[2]) for row in rows) == [1, 3 * BLOCKS - 1]
    assert any("model.layers.*.attn.q_proj.weight" in row[3] for row in rows)


def test_results_of_other_models_are_refused(blocks: Path, result: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    four = blocks / "four.parquet"
    assert "have no layer in common" in failed("report", four, result, "--html", page)
    assert "is the source" in failed("report", result, four, "--html", four, "--overwrite")
    assert "'nope' does not exist" in failed("report", four, "nope", "--html", page)
    assert not page.exists()


def test_numbers_of_two_results_for_programs(blocks: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    one, other = blocks / "four.parquet", blocks / "three.parquet"
    said = json.loads(succeeded("report", one, other, "--html", page, "--json"))
    assert said["other"] == Page(page).data["other"]["totals"]


def test_hostile_names_are_text_beside_each_other(tmp_path: Path) -> None:
    names = [f"{name}.{block}.x" for block in (0, 1) for name in HOSTILE]
    table = numpy_to_arrow_table(
        {
            name: np.random.default_rng(i).standard_normal((4, 64), np.float32)
            for i, name in enumerate(names)
        }
    )
    paths = [
        written(quantize_batch_arrow(table, bits, metrics=True), tmp_path, f"{bits}.arrow")
        for bits in (3, 4)
    ]
    page = report(paths[0], tmp_path, paths[1])
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "a", "i"})
    shown = [*page.charts["blocks"]["layout"]["yaxis"]["ticktext"]]
    for row in page.charts["blocks"]["data"][0]["text"]:
        shown += [text.removeprefix("<b>").partition("</b><br>")[0] for text in row]
    for trace in page.charts["beside"]["data"]:
        shown += [text.removeprefix("<b>").partition("</b><br>")[0] for text in trace["hovertext"]]
    assert shown
    assert not any("<" in text for text in shown)


def test_a_gguf_model_beside_the_folder_it_was_made_from(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    paths = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for path, mix in zip(paths, ("Q4_K_M", "Q8_0"), strict=True):
        succeeded("quantize", folder, path, "--recipe", mix)
    page = report(paths[0], tmp_path, paths[1], "--original", folder)
    errors = [side["totals"]["relative_error"] for side in (page.data, page.data["other"])]
    assert 0 < errors[1] < errors[0] < 0.1
    assert page.data["recipe"] is None


@pytest.mark.parametrize("original", ["model", "f16.gguf"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_gguf_model_beside_a_folder(tmp_path: Path, original: str, order: int) -> None:
    folder = hf_folders.write(tmp_path / "model")
    succeeded("dequantize", folder, tmp_path / "f16.gguf")
    paths = [tmp_path / "a.gguf", tmp_path / "a-mlx"][::order]
    succeeded("quantize", folder, tmp_path / "a.gguf", "--recipe", "Q8_0")
    succeeded("quantize", folder, tmp_path / "a-mlx", "--to", "mlx", "--recipe", "all")
    page = report(paths[0], tmp_path, paths[1], "--original", tmp_path / original)
    errors = [side["totals"]["relative_error"] for side in (page.data, page.data["other"])]
    assert 0 < errors[::order][0] < errors[::order][1] < 0.2
    layers = [side["totals"]["layers"] for side in (page.data, page.data["other"])]
    assert layers[0] == layers[1]
