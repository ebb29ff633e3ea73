"""Recipe.fit: the combination of least error within a budget, and what it promises."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import plain, plain_layers

from pyarrowquant import (
    Expected,
    QuantizationError,
    Recipe,
    Rule,
    SkippedLayerWarning,
    numpy_to_arrow_table,
    quantize_batch_arrow,
)

CANDIDATES: list[dict[str, Any]] = [
    {"bit_width": 2, "group_size": 64, "method": "rtn"},
    {"bit_width": 3, "group_size": -1, "method": "mse", "zero_point": "float"},
    {"bit_width": 4, "group_size": 32, "method": "rtn", "scale_dtype": "float16"},
    {"bit_width": 8, "group_size": 64, "method": "rtn", "zero_point": "symmetric"},
]


def layers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    shapes = {"a": (4, 100), "b[0]*": (16, 64), "c": (300,), "d": (2, 3, 32), "e": (8, 200)}
    scales = (1.0, 0.1, 3.0, 0.5, 1.5)
    return {
        name: rng.standard_normal(shape, np.float32) * np.float32(scale)
        for (name, shape), scale in zip(shapes.items(), scales, strict=True)
    }


def counted_bits(shape: tuple[int, ...], settings: dict[str, Any]) -> int:
    """Codes padded to bytes in each row; scales; zero-points."""
    rows = shape[0] if len(shape) > 1 else 1
    columns = math.prod(shape) // rows
    width, group_size = settings["bit_width"], settings.get("group_size", 128)
    groups = 1 if group_size == -1 else math.ceil(columns / group_size)
    scale = 32 if settings.get("scale_dtype", "float32") == "float32" else 16
    zero = {"integer": width, "float": scale, "symmetric": 0}
    a_group = scale + zero[settings.get("zero_point", "integer")]
    return rows * (8 * math.ceil(columns * width / 8) + groups * a_group)


def measured(table: pa.Table, settings: dict[str, Any]) -> dict[str, float]:
    """Squared error of each layer."""
    result = quantize_batch_arrow(table, **settings, metrics=True)
    return {row["layer_name"]: row["mse"] * math.prod(row["shape"]) for row in result.to_pylist()}


@pytest.mark.parametrize("objective", ["squared_error", "relative_error"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bits_per_weight", [3.2, 4.0, 4.7, 5.9, 7.5, 30.0])
def test_nothing_within_the_budget_is_better(
    objective: str, weighted: bool, bits_per_weight: float
) -> None:
    arrays = layers()
    table = plain_layers(arrays)
    weights = dict.fromkeys(arrays, 1.0)
    if weighted:
        weights = dict(zip(arrays, [1.0, 50.0, 0.0, 3.0, 0.2], strict=True))
        table = table.append_column("sensitivity", pa.array(list(weights.values())))
    errors = [measured(table, settings) for settings in CANDIDATES]
    if objective == "relative_error":
        norms = {name: np.square(w.astype(np.float64)).sum() for name, w in arrays.items()}
        errors = [{name: e / norms[name] for name, e in each.items()} for each in errors]
    budget = bits_per_weight * sum(w.size for w in arrays.values())

    def total(choice: dict[str, int]) -> tuple[float, int]:
        bits = sum(counted_bits(arrays[name].shape, CANDIDATES[k]) for name, k in choice.items())
        return sum(weights[name] * errors[k][name] for name, k in choice.items()), bits

    solutions = (
        total(dict(zip(arrays, ks, strict=True)))
        for ks in itertools.product(range(len(CANDIDATES)), repeat=len(arrays))
    )
    best = min(error for error, bits in solutions if bits <= budget)

    recipe = Recipe.fit(
        table,
        bits_per_weight,
        CANDIDATES,
        objective=objective,
        weight_column="sensitivity" if weighted else None,
    )
    chosen = {}
    for name, w in arrays.items():
        said = recipe.settings_of(name, w.shape)
        matching = [k for k, c in enumerate(CANDIDATES) if said and c.items() <= said.items()]
        chosen[name] = matching[0]
    error, bits = total(chosen)
    assert error == pytest.approx(best, rel=1e-12, abs=1e-12)
    assert bits <= budget
    assert recipe.expected is not None
    assert recipe.expected.bits_per_weight == pytest.approx(bits / (budget / bits_per_weight))


def test_the_expectation_is_met() -> None:
    rng = np.random.default_rng(5)
    table = numpy_to_arrow_table(
        {
            f"layer.{k}": rng.standard_t(4, (32, 256)).astype(np.float32) * np.float32(k + 1)
            for k in range(12)
        }
    )
    recipe = Recipe.fit(table, 4.3)
    result = quantize_batch_arrow(table, recipe=recipe, metrics=True).to_pylist()
    squared = math.fsum(row["mse"] * math.prod(row["shape"]) for row in result)
    norm = math.fsum(
        row["mse"] * math.prod(row["shape"]) / row["relative_error"] ** 2 for row in result
    )
    bits = sum(
        8 * len(row["quantized_data"]) + len(row["scales"]) * (32 + row["bit_width"])
        for row in result
    )
    elements = sum(math.prod(row["shape"]) for row in result)
    assert recipe.expected is not None
    assert recipe.expected.squared_error == pytest.approx(squared, rel=1e-12)
    assert recipe.expected.relative_error == pytest.approx(math.sqrt(squared / norm), rel=1e-12)
    assert recipe.expected.bits_per_weight == pytest.approx(bits / elements, rel=1e-12)
    assert 4.2 < bits / elements <= 4.3
    even = quantize_batch_arrow(table, 4, method="mse", metrics=True).to_pylist()
    assert squared < math.fsum(row["mse"] * math.prod(row["shape"]) for row in even)


def test_more_bits_never_leave_more_error() -> None:
    table = plain_layers(layers())
    recipes = [Recipe.fit(table, bits) for bits in np.arange(2.6, 9, 0.4)]
    errors = [recipe.expected.squared_error for recipe in recipes if recipe.expected]
    assert len(errors) == len(recipes)
    assert errors == sorted(errors, reverse=True)


def test_a_recipe_says_what_to_skip() -> None:
    table = plain_layers(layers())
    fitted = Recipe.fit(table, 4, CANDIDATES, recipe=Recipe([Rule(["a", "c"], skip=True)]))
    result = quantize_batch_arrow(table, recipe=fitted)
    assert result["layer_name"].to_pylist() == ["b[0]*", "d", "e"]
    assert fitted.settings_of("something else", (4, 4)) is None


def test_fitted_recipes_are_kept_as_files(tmp_path: Any) -> None:
    recipe = Recipe.fit(plain_layers(layers()), 4, CANDIDATES)
    for name in ("recipe.json", "recipe.yaml"):
        recipe.save(tmp_path / name)
        assert Recipe.load(tmp_path / name) == recipe
    assert isinstance(Recipe.load(tmp_path / "recipe.json").expected, Expected)
    with pytest.raises(TypeError, match="Recipe: expected: bits_per_weight must be a number"):
        Recipe.from_dict({"expected": {"bits_per_weight": "4"}})
    with pytest.raises(ValueError, match="Recipe: expected: unknown field 'bits'"):
        Recipe.from_dict({"expected": {"bits": 4}})


def test_constant_and_empty_layers() -> None:
    arrays = {"zeros": np.zeros((4, 64)), "empty": np.zeros((0, 8)), "a": np.arange(64.0)}
    recipe = Recipe.fit(plain(list(arrays), list(arrays.values())), 6, objective="relative_error")
    assert recipe.settings_of("zeros", (4, 64)) is not None


def test_progress_counts_every_candidate() -> None:
    seen: list[tuple[str, float]] = []
    table = plain_layers(layers())
    Recipe.fit(table, 5, CANDIDATES, progress=lambda *event: seen.append(event))
    assert len(seen) == len(CANDIDATES) * table.num_rows
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"bits_per_weight": 1}, ValueError, "Invalid bits_per_weight: 1. The smallest candidates"),
        ({"bits_per_weight": math.nan}, ValueError, "Invalid bits_per_weight: nan"),
        ({"bits_per_weight": math.inf}, ValueError, "Invalid bits_per_weight: inf"),
        ({"candidates": []}, ValueError, "candidates must not be empty"),
        ({"candidates": [{"bit": 4}]}, ValueError, "Candidate 1: unknown field 'bit'"),
        ({"candidates": [{}, {"bit_width": 7}]}, ValueError, "Candidate 2: bit_width 7"),
        ({"bits_per_weight": "4"}, TypeError, "bits_per_weight must be a number, got str: '4'"),
        ({"bits_per_weight": None}, TypeError, "bits_per_weight must be a number"),
        ({"candidates": {"bit_width": 4}}, TypeError, "candidates must be a list of dicts"),
        ({"candidates": [4]}, TypeError, "Candidate 1 must be a dict, got int: 4"),
        ({"objective": "cosine"}, ValueError, "objective 'cosine' must be one of"),
        ({"weight_column": "x"}, ValueError, "Missing column 'x', which weight_column names"),
        ({"recipe": 5}, TypeError, "recipe must be a Recipe, the name of one"),
        ({"recipe": Recipe(default="skip")}, ValueError, "There is no layer to fit"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        Recipe.fit(plain_layers(layers()), **{"bits_per_weight": 4, **options})
    assert text in str(caught.value)


def test_layers_that_fail_are_named() -> None:
    table = plain(["a", "b"], [[1.0, math.nan], [math.inf]])
    with pytest.raises(QuantizationError) as caught:
        Recipe.fit(table, 40)
    assert [(e.layer_name, e.row) for e in caught.value.errors] == [("a", 0), ("b", 1)]
    table = plain(["a", "b"], [[1.0, math.nan], [2.0]])
    with pytest.warns(SkippedLayerWarning, match="Skipped: Layer 'a'"):
        recipe = Recipe.fit(table, 60, continue_on_error=True)
    assert quantize_batch_arrow(table, recipe=recipe)["layer_name"].to_pylist() == ["b"]
    with pytest.raises(ValueError, match="Layer 'a' is there twice"):
        Recipe.fit(plain(["a", "a"], [[1.0], [2.0]]), 40)
    weights = plain(["a"], [[1.0]]).append_column("w", pa.array([-1.0]))
    with pytest.raises(ValueError, match=r"Column 'w' has -1.0 in row 0"):
        Recipe.fit(weights, 40, weight_column="w")


def test_its_own_expectation_is_a_budget() -> None:
    """What was computed by division has to be enough when it comes back."""
    rng = np.random.default_rng(9)
    for rows, columns in rng.integers(1, 70, (40, 2)):
        table = plain(["a"], [rng.standard_normal((rows, columns))])
        recipe = Recipe.fit(table, 50, [{"bit_width": 4}])
        assert recipe.expected is not None
        again = Recipe.fit(table, recipe.expected.bits_per_weight, [{"bit_width": 4}])
        assert again == recipe


def test_exact_layers_count_in_the_norm() -> None:
    exact = np.tile(np.array([-800.0, 700.0]), (64, 32))
    rough = np.random.default_rng(0).standard_normal((64, 64))
    recipe = Recipe.fit(plain(["exact", "rough"], [exact, rough]), 5)
    norm = math.sqrt(np.square(exact).sum() + np.square(rough.astype(np.float32)).sum())
    assert recipe.expected is not None
    expected = math.sqrt(recipe.expected.squared_error) / norm
    assert recipe.expected.relative_error == pytest.approx(expected, rel=1e-6)


def test_settings_of_a_recipe_hold_but_for_bits() -> None:
    recipe = Recipe([Rule("a*", group_size=32, bit_width=8)], default={"group_size": 64})
    rng = np.random.default_rng(4)
    weights = {name: rng.standard_normal((64, 256), np.float32) for name in "ab"}
    table = numpy_to_arrow_table(weights)
    fitted = Recipe.fit(table, 4.9, recipe=recipe)
    result = quantize_batch_arrow(table, recipe=fitted)
    assert result["group_size"].to_pylist() == [32, 64]
    assert 8 not in result["bit_width"].to_pylist()
    chosen = Recipe.fit(table, 9.1, [{"bit_width": 8, "group_size": 128}], recipe=recipe)
    assert chosen.settings_of("a", (64, 256))["group_size"] == 128


def test_encodings_of_a_recipe_hold() -> None:
    table = numpy_to_arrow_table(layers())
    said = {"a": {"encoding": "q4_k"}, "d": {"encoding": "fp8", "group_size": "tensor"}}
    recipe = Recipe([Rule(name, **settings) for name, settings in said.items()])
    fitted = Recipe.fit(table, 6.5, recipe=recipe)
    rows = {
        row["layer_name"]: row for row in quantize_batch_arrow(table, recipe=fitted).to_pylist()
    }
    assert {name: row["encoding"] for name, row in rows.items() if row["encoding"] != "int"} == {
        name: settings["encoding"] for name, settings in said.items()
    }
    assert len(rows["d"]["super_scales"]) == 1
    assert fitted.expected.bits_per_weight <= 6.5
    with pytest.raises(ValueError, match="bit_width 3 contradicts encoding 'q4_k'"):
        Recipe.fit(table, 6.5, [{"bit_width": 3}], recipe=recipe)


def test_formats_have_what_nobody_said_in_their_own_way() -> None:
    rng = np.random.default_rng(4)
    shape = (64, 256)
    table = numpy_to_arrow_table({name: rng.standard_normal(shape, np.float32) for name in "ab"})
    open_ones = {"bit_width": 8, "group_size": 128, "method": "mse"}
    assert Recipe.fit(table, 9).settings_of("a", shape) == open_ones

    recipe = Recipe([Rule("a", zero_point="symmetric")])
    fitted = Recipe.fit(table, 9, recipe=recipe)
    assert fitted.settings_of("a", shape) == {**open_ones, "zero_point": "symmetric"}
    assert fitted.settings_of("b", shape) == open_ones

    candidate = {"bit_width": 4, "scale_dtype": "float16"}
    by_candidate = Recipe.fit(table, 9, [candidate]).settings_of("a", shape)
    assert by_candidate == {**open_ones, **candidate}

    # the zero-points of a format may leave hqq nothing to choose
    by_hqq = Recipe.fit(table, 9, [{"bit_width": 4, "method": "hqq"}]).settings_of("a", shape)
    assert by_hqq is not None
    assert by_hqq["zero_point"] == "integer"
    assert "scale_dtype" not in by_hqq
