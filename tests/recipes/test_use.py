"""Recipes and quality floors at work: what each layer of a call gets."""

from __future__ import annotations

import json
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from conftest import assert_same, plain, plain_layers, with_column

from pyarrowquant import (
    QuantizationError,
    Recipe,
    Rule,
    SkippedLayerWarning,
    quantize_batch,
    quantize_batch_arrow,
    quantize_stream,
)

RECIPE = Recipe(
    [
        Rule("*norm*", skip=True),
        Rule("*.q", bit_width=8, group_size=32),
        Rule(ndim=1, bit_width=6, method="mse", zero_point="float"),
        Rule(min_columns=200, bit_width=2, scale_dtype="float16"),
    ],
    default={"group_size": 64},
)


def matrices() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    shapes: dict[str, tuple[int, ...]] = {
        "a.q": (8, 200),
        "a.norm": (64,),
        "a.bias": (100,),
        "b.wide": (3, 10, 40),
        "b.narrow": (6, 72),
    }
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


EXPECTED: dict[str, dict[str, Any]] = {
    "a.bias": {"bit_width": 6, "group_size": 64, "method": "mse", "zero_point": "float"},
    "a.q": {"bit_width": 8, "group_size": 32},
    "b.narrow": {"bit_width": 3, "group_size": 64},
    "b.wide": {"bit_width": 2, "group_size": 64, "scale_dtype": "float16"},
}


def one_by_one(layers: dict[str, np.ndarray]) -> pa.Table:
    """What the recipe has to give, each layer by a call of its own."""
    return pa.concat_tables(
        quantize_batch_arrow(plain([name], [layers[name]]), **settings).replace_schema_metadata()
        for name, settings in EXPECTED.items()
    ).combine_chunks()


def test_each_layer_has_its_settings() -> None:
    layers = matrices()
    result = quantize_batch_arrow(plain_layers(layers), 3, recipe=RECIPE)
    assert_same(result.replace_schema_metadata().combine_chunks(), one_by_one(layers))


def test_metadata_says_what_all_layers_have_in_common() -> None:
    table = plain_layers(matrices())

    def said(recipe: Recipe) -> dict[str, Any]:
        metadata = quantize_batch_arrow(table, recipe=recipe).schema.metadata
        return json.loads(metadata[b"pyarrowquant"])

    assert said(RECIPE)["method"] is None
    assert said(RECIPE)["zero_point"] is None
    assert said(RECIPE)["scale_dtype"] is None
    same = said(Recipe([Rule("*.q", bit_width=8)], {"method": "mse"}))
    assert (same["method"], same["zero_point"]) == ("mse", "integer")


@pytest.mark.parametrize("form", ["polars", "raw", "raw without shapes", "dictionary", "list_view"])
def test_input_forms(form: str) -> None:
    layers = matrices()
    table = plain_layers(layers)
    expected = quantize_batch_arrow(table, 3, recipe=RECIPE)
    source: Any = table
    if form == "polars":
        source = pl.from_arrow(table)
    elif form == "dictionary":
        source = with_column(table, "layer_name", table["layer_name"].dictionary_encode())
    elif form == "list_view":
        weights = table["weights"].combine_chunks()
        views = pa.ListViewArray.from_arrays(
            weights.offsets[:-1], weights.value_lengths(), weights.values
        )
        source = with_column(table, "weights", views)
    else:
        source = pa.table(
            {
                "layer_name": list(layers),
                "weights": [array.tobytes() for array in layers.values()],
                "dtype": ["F32"] * len(layers),
                "shape": [list(array.shape) for array in layers.values()],
            }
        )
    if form == "raw without shapes":  # all layers have one dimension then
        flat = {name: array.ravel() for name, array in layers.items()}
        expected = quantize_batch_arrow(plain_layers(flat), 3, recipe=RECIPE)
        source = source.drop_columns("shape")
    assert_same(quantize_batch_arrow(source, 3, recipe=RECIPE), expected)


def test_stream_and_numpy_give_the_same() -> None:
    layers = matrices()
    table = plain_layers(layers)
    reader = quantize_stream(table.to_reader(max_chunksize=2), 3, recipe=RECIPE)
    expected = quantize_batch_arrow(table, 3, recipe=RECIPE, sort=False)
    assert reader.schema.metadata == expected.schema.metadata
    assert reader.read_all().combine_chunks().equals(expected.combine_chunks())
    by_name = quantize_batch(layers, 3, recipe=RECIPE)
    assert {name: layer["bit_width"] for name, layer in by_name.items()} == {
        name: settings["bit_width"] for name, settings in EXPECTED.items()
    }


def test_skipped_layers_may_be_anything() -> None:
    table = pa.table(
        {
            "layer_name": ["a", "norm", "position_ids"],
            "weights": [b"\0\0\x80\x3f", np.float32(np.nan).tobytes(), bytes(8)],
            "dtype": ["F32", "F32", "I64"],
        }
    )
    recipe = Recipe([Rule(["norm", "position_ids"], skip=True)])
    assert quantize_batch_arrow(table, recipe=recipe)["layer_name"].to_pylist() == ["a"]


def test_a_recipe_that_skips_all_gives_an_empty_table() -> None:
    result = quantize_batch_arrow(plain_layers(matrices()), recipe=Recipe(default="skip"))
    assert result.num_rows == 0
    assert result.schema.names[:2] == ["layer_name", "quantized_data"]


def test_errors_name_the_rows_of_the_whole_input() -> None:
    layers = {"norm": np.ones(4), "bad": np.array([1, np.nan]), "good": np.ones(4)}
    table = plain(list(layers), list(layers.values()))
    recipe = Recipe([Rule("norm", skip=True)])
    with pytest.raises(QuantizationError, match="index 1") as caught:
        quantize_batch_arrow(table, recipe=recipe)
    assert [(e.layer_name, e.row) for e in caught.value.errors] == [("bad", 1)]
    with pytest.warns(SkippedLayerWarning, match="bad"):
        result = quantize_batch_arrow(table, continue_on_error=True, recipe=recipe)
    assert result["layer_name"].to_pylist() == ["good"]
    reader = quantize_stream(table.to_reader(max_chunksize=1), recipe=recipe)
    with pytest.raises(QuantizationError) as caught:
        reader.read_all()
    assert [e.row for e in caught.value.errors] == [1]


def test_names_that_cannot_be_read_are_errors() -> None:
    offsets, text = pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")
    names = pa.Array.from_buffers(pa.string(), 2, [None, offsets, text])
    table = with_column(plain(["a", "b"], [[1.0], [2.0]]), "layer_name", names)
    with pytest.raises(QuantizationError, match="not valid UTF-8"):
        quantize_batch_arrow(table, recipe=Recipe(default="skip"))
    table = with_column(table, "layer_name", pa.array(["a", None]))
    with pytest.raises(QuantizationError, match="layer_name is null"):
        quantize_batch_arrow(table, recipe=Recipe(default="skip"))


def test_wrong_arguments() -> None:
    table = plain(["a"], [[1.0]])
    with pytest.raises(TypeError, match=r"recipe must be a Recipe, .* or a dict, got int: 5"):
        quantize_batch_arrow(table, recipe=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Invalid zero_point: 'symmetric' leaves method 'hqq'"):
        quantize_batch_arrow(
            table, recipe=Recipe([Rule("x", zero_point="symmetric")]), method="hqq"
        )
    for floor, error, text in (
        ("high", TypeError, "quality_floor must be a number, got str: 'high'"),
        (True, TypeError, "quality_floor must be a number, got bool: True"),
        (1.5, ValueError, "Invalid quality_floor: cosine 1.5. Must be above 0 and at most 1"),
        (0, ValueError, "Invalid quality_floor: cosine 0. Must be above 0 and at most 1"),
        ({"relative_error": -1}, ValueError, "relative_error -1. Must be above 0"),
        ({"mse": 1}, ValueError, "'mse'. Must be 'cosine' or 'relative_error'"),
    ):
        with pytest.raises(error) as caught:
            quantize_batch_arrow(table, quality_floor=floor)  # type: ignore[arg-type]
        assert text in str(caught.value)


def floor_layers() -> dict[str, np.ndarray]:
    """Layers that need different widths: an outlier makes all other steps coarse."""
    rng = np.random.default_rng(3)
    layers = {}
    for k, outlier in enumerate((1, 4, 20, 100)):
        weights = rng.standard_normal((8, 128), np.float32)
        weights[:, 0] = outlier
        layers[f"l{k}"] = weights
    return layers


@pytest.mark.parametrize(
    "floor", [0.95, {"cosine": 0.995}, {"relative_error": 0.05}, {"relative_error": 0.2}]
)
def test_floor_gives_each_layer_the_least_width_that_passes(floor: Any) -> None:
    table = plain_layers(floor_layers())
    bounds = floor if isinstance(floor, dict) else {"cosine": floor}
    passes: dict[str, int] = {}
    for width in (2, 3, 4, 5, 6, 8):
        for row in quantize_batch_arrow(table, width, metrics=True).to_pylist():
            fits = row["cosine"] >= bounds.get("cosine", 0)
            if fits and row["relative_error"] <= bounds.get("relative_error", 9):
                passes.setdefault(row["layer_name"], width)
    result = quantize_batch_arrow(table, 2, quality_floor=floor)
    chosen = dict(
        zip(result["layer_name"].to_pylist(), result["bit_width"].to_pylist(), strict=True)
    )
    assert chosen == passes
    assert len(set(passes.values())) > 1
    for name, width in chosen.items():
        alone = quantize_batch_arrow(plain([name], [floor_layers()[name]]), width)
        row = result.filter(pa.compute.equal(result["layer_name"], name))
        assert row["quantized_data"].to_pylist() == alone["quantized_data"].to_pylist()


def test_floor_out_of_reach_warns_and_gives_8_bits() -> None:
    with pytest.warns(UserWarning, match="Layer 'a' has cosine .*, below the quality_floor of 1"):
        result = quantize_batch_arrow(plain(["a"], [np.linspace(-1, 2, 64)]), quality_floor=1)
    assert result["bit_width"].to_pylist() == [8]


def test_floor_with_a_recipe_a_stream_and_failing_layers() -> None:
    layers = floor_layers() | {"bad": np.full((1, 4), np.inf, np.float32)}
    table = plain_layers(layers)
    recipe = Recipe([Rule("l3", skip=True), Rule("l0", bit_width=6)])
    options: dict[str, Any] = {"recipe": recipe, "quality_floor": 0.95}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = quantize_batch_arrow(table, 2, True, **options, sort=False)
    assert [str(w.message).split("'")[1] for w in caught] == ["bad"]
    assert result["layer_name"].to_pylist() == ["l0", "l1", "l2"]
    assert result["bit_width"][0].as_py() == 6
    good = plain_layers(floor_layers())
    streamed = quantize_stream(good.to_reader(max_chunksize=1), 2, **options).read_all()
    assert streamed.combine_chunks().equals(result.combine_chunks())


def test_lists_may_stand_beside_a_dtype_column() -> None:
    table = pa.table({"layer_name": ["a"], "weights": [[1.0] * 9], "dtype": ["F32"]})
    recipe = Recipe([Rule(min_columns=10, bit_width=2), Rule(min_columns=9, bit_width=3)])
    assert quantize_batch_arrow(table, recipe=recipe)["bit_width"].to_pylist() == [3]


def test_bfloat16_without_shapes_counts_elements() -> None:
    weights = np.ones(300, ml_dtypes.bfloat16)
    table = pa.table({"layer_name": ["a"], "weights": [weights.tobytes()], "dtype": ["BF16"]})
    recipe = Recipe([Rule(min_columns=301, bit_width=2), Rule(min_columns=300, bit_width=3)])
    assert quantize_batch_arrow(table, recipe=recipe)["bit_width"].to_pylist() == [3]


def test_shapes_with_nulls_are_errors_of_their_layers() -> None:
    shapes = pa.array([[1, None], [1, 2]], pa.list_(pa.int64()))
    table = pa.table({"layer_name": ["a", "b"], "weights": [[1.0, 2.0]] * 2, "shape": shapes})
    recipe = Recipe([Rule(min_columns=2, bit_width=8)])
    with pytest.raises(QuantizationError, match="null in shape"):
        quantize_batch_arrow(table, recipe=recipe)


def test_exact_layers_meet_any_floor() -> None:
    result = quantize_batch_arrow(plain(["a"], [np.ones(5)]), 2, quality_floor=1.0)
    assert result["bit_width"].to_pylist() == [2]
    assert quantize_batch_arrow(plain(["a"], [[1.0]]), quality_floor=np.float32(0.5)).num_rows == 1


def test_a_floor_keeps_the_last_width_whose_scales_fit() -> None:
    weights = np.linspace(0, 4e-6, 64)
    table = plain(["a"], [weights])
    with pytest.warns(UserWarning, match="misses the quality_floor with . bits, and its scales"):
        result = quantize_batch_arrow(table, 2, scale_dtype="float16", quality_floor=0.9999)
    width = result["bit_width"][0].as_py()
    assert 2 < width < 8
    assert result["scales"][0].as_py()[0] < 1
