"""Budgets and floors of layers with importance: errors count by it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import plain_layers

from pyarrowquant import Recipe, dequantize_batch_arrow, quantize_batch_arrow, quantize_stream

Layers = Mapping[str, np.ndarray]

SHAPES = {"a": (32, 256), "b": (16, 512), "c": (300,), "stack": (3, 8, 256), "none": (8, 256)}
CANDIDATES: list[dict[str, Any]] = [
    {"encoding": "q2_k", "method": "mse"},
    {"bit_width": 3, "group_size": 64, "method": "mse"},
    {"encoding": "iq4_nl", "method": "mse"},
    {"bit_width": 8, "group_size": 32, "method": "rtn", "scale_dtype": "float16"},
]
OTHERS: list[dict[str, Any]] = [
    {"bit_width": width, "group_size": 32, "method": "mse"} for width in (2, 3, 4, 6)
]


def layers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    return {
        name: (rng.standard_normal(shape) * np.exp(rng.standard_normal(shape[-1]))).astype(
            np.float32
        )
        for name, shape in SHAPES.items()
    }


def importance() -> dict[str, np.ndarray | None]:
    """That of columns; of the stack, for each of its matrices."""
    rng = np.random.default_rng(12)
    found: dict[str, np.ndarray | None] = {
        name: np.exp(2 * rng.standard_normal(shape[-1])) for name, shape in SHAPES.items()
    }
    found["stack"] = np.exp(2 * rng.standard_normal(3 * 256))
    found["none"] = None
    return found


def table_of(arrays: Layers, values: Mapping[str, np.ndarray | None]) -> pa.Table:
    column = pa.array([values[name] for name in arrays], pa.list_(pa.float64()))
    return plain_layers(dict(arrays)).append_column("importance", column)


def shares(weights: np.ndarray, values: np.ndarray | None) -> np.ndarray:
    """What each weight counts."""
    if values is None:
        return np.ones(weights.shape)
    if weights.ndim == 3:
        values = values.reshape(len(weights), 1, -1)
    return np.broadcast_to(values, weights.shape)


def decoded(table: pa.Table, **settings: Any) -> dict[str, np.ndarray]:
    result = dequantize_batch_arrow(quantize_batch_arrow(table, **settings))
    return {
        row["layer_name"]: np.float64(row["weights"]).reshape(row["shape"])
        for row in result.to_pylist()
    }


def relative_error(weights: np.ndarray, found: np.ndarray, counts: np.ndarray) -> float:
    wide = weights.astype(np.float64)
    return math.sqrt((counts * (wide - found) ** 2).sum() / (counts * wide**2).sum())


def cosine(weights: np.ndarray, found: np.ndarray, counts: np.ndarray) -> float:
    wide = weights.astype(np.float64)
    norms = math.sqrt((counts * wide**2).sum() * (counts * found**2).sum())
    return float((counts * wide * found).sum() / norms)


@pytest.mark.parametrize("candidates", [CANDIDATES, OTHERS])
@pytest.mark.parametrize("objective", ["squared_error", "relative_error"])
@pytest.mark.parametrize("bits_per_weight", [4.2, 5.3, 6.6, 30.0])
def test_a_budget_has_the_least_error_by_importance(
    candidates: list[dict[str, Any]], objective: str, bits_per_weight: float
) -> None:
    arrays, values = layers(), importance()
    table = table_of(arrays, values)
    errors: dict[str, list[float]] = {}
    by_each = [decoded(table, **settings) for settings in candidates]
    for name, weights in arrays.items():
        one = np.ones(weights.shape)
        plain = [relative_error(weights, each[name], one) ** 2 for each in by_each]
        counts = shares(weights, values[name])
        weighted = [relative_error(weights, each[name], counts) ** 2 for each in by_each]
        finest = int(np.argmin(plain))
        factor = plain[finest] / weighted[finest]
        norm = 1.0 if objective == "relative_error" else np.square(weights, dtype=float).sum()
        errors[name] = [norm * factor * each for each in weighted]

    def bits(name: str, k: int) -> int:
        fitted = Recipe.fit(
            table.filter(pa.compute.equal(table["layer_name"], name)), 64, [candidates[k]]
        )
        assert fitted.expected is not None
        return round(fitted.expected.bits_per_weight * arrays[name].size)

    size = {name: [bits(name, k) for k in range(len(candidates))] for name in arrays}
    budget = bits_per_weight * sum(weights.size for weights in arrays.values())

    def total(ks: tuple[int, ...]) -> float:
        return sum(errors[name][k] for name, k in zip(arrays, ks, strict=True))

    within = [
        ks
        for ks in itertools.product(range(len(candidates)), repeat=len(arrays))
        if sum(size[name][k] for name, k in zip(arrays, ks, strict=True)) <= budget
    ]
    recipe = Recipe.fit(table, bits_per_weight, candidates, objective=objective)
    chosen = []
    for name, weights in arrays.items():
        said = recipe.settings_of(name, weights.shape)
        chosen.append(
            next(k for k, c in enumerate(candidates) if said and c.items() <= said.items())
        )
    assert total(tuple(chosen)) == pytest.approx(min(map(total, within)), rel=1e-6)


def test_the_expectation_is_of_all_columns_alike() -> None:
    arrays = layers()
    table = table_of(arrays, importance())
    recipe = Recipe.fit(table, 5)
    result = quantize_batch_arrow(table, recipe=recipe, metrics=True)
    errors = [row["mse"] * math.prod(row["shape"]) for row in result.to_pylist()]
    assert recipe.expected is not None
    assert recipe.expected.squared_error == pytest.approx(math.fsum(errors), rel=1e-12)
    found = dequantize_batch_arrow(result).to_pylist()
    plain = [np.square(arrays[row["layer_name"]].ravel() - row["weights"]).sum() for row in found]
    assert errors == pytest.approx(plain, rel=1e-5)


def test_bits_go_where_importance_needs_them() -> None:
    """Layers of the same weights, half of whose columns two bits hold exactly."""
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((32, 256), np.float32)
    weights[:, :128] = weights[:, :128] > 0
    weights[0, :128] *= 1 + 1e-3 * rng.random(128, np.float32)  # but not to the last bit
    arrays = {"exact": weights, "rough": weights}
    values = {"exact": np.repeat([1.0, 1e-7], 128), "rough": np.repeat([1e-7, 1.0], 128)}
    table = table_of(arrays, values)
    candidates = [{"bit_width": width, "group_size": 64, "method": "mse"} for width in (2, 4, 6)]

    def widths(each: pa.Table) -> list[int]:
        recipe = Recipe.fit(each, 4.9, candidates)
        return quantize_batch_arrow(each, recipe=recipe)["bit_width"].to_pylist()

    assert widths(table.drop_columns("importance")) == [4, 4]
    assert widths(table) == [2, 6]


@pytest.mark.parametrize("method", ["mse", "rtn"])
@pytest.mark.parametrize("floor", [{"relative_error": 0.08}, {"cosine": 0.997}])
def test_a_floor_is_one_of_errors_by_importance(method: str, floor: dict[str, float]) -> None:
    arrays, values = layers(), importance()
    table = table_of(arrays, values)
    options: dict[str, Any] = {"method": method, "group_size": 64}
    least: dict[str, int] = {}
    for width in (2, 3, 4, 5, 6, 8):
        found = decoded(table, bit_width=width, **options)
        for name, weights in arrays.items():
            counts = shares(weights, values[name])
            error = relative_error(weights, found[name], counts)
            near = cosine(weights, found[name], counts)
            if error <= floor.get("relative_error", 9) and near >= floor.get("cosine", 0):
                least.setdefault(name, width)
    result = quantize_batch_arrow(table, 2, **options, quality_floor=floor)
    chosen = dict(
        zip(result["layer_name"].to_pylist(), result["bit_width"].to_pylist(), strict=True)
    )
    assert chosen == least
    streamed = quantize_stream(table.to_reader(max_chunksize=1), 2, **options, quality_floor=floor)
    assert (
        dict(
            zip(
                *streamed.read_all().select(["layer_name", "bit_width"]).to_pydict().values(),
                strict=True,
            )
        )
        == least
    )


def test_a_missed_floor_says_what_it_was_measured_by() -> None:
    arrays = {"a": layers()["a"]}
    table = table_of(arrays, importance())
    with pytest.warns(UserWarning, match=r"has relative_error \S+ by importance, above the"):
        quantize_batch_arrow(table, quality_floor={"relative_error": 1e-6})
    with pytest.warns(UserWarning, match=r"has cosine \S+ by importance, below the"):
        quantize_batch_arrow(table, quality_floor=1)
    zeros = table_of(arrays, {"a": np.zeros(256)})
    with pytest.warns(UserWarning, match=r"has relative_error \S+, above the"):
        quantize_batch_arrow(zeros, quality_floor={"relative_error": 1e-6})


@pytest.mark.parametrize("group_size", ["tensor", "block", -1, 64])
def test_shared_scales_are_measured_by_importance(group_size: int | str) -> None:
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((150, 300), np.float32)
    weights[:, 7] *= 1000
    values = np.where(np.arange(300) == 7, 1e-9, 1.0)
    table = table_of({"a": weights}, {"a": values})
    settings: dict[str, Any] = {"encoding": "fp8", "group_size": group_size, "method": "mse"}
    counts = shares(weights, values)
    error = relative_error(weights, decoded(table, **settings)["a"], counts)
    near = {"relative_error": error * (1 + 1e-6)}
    result = quantize_batch_arrow(table, **settings, quality_floor=near)
    assert result["encoding"].to_pylist() == ["fp8"]
    with pytest.warns(UserWarning, match="by importance"):
        quantize_batch_arrow(
            table, **settings, quality_floor={"relative_error": error * (1 - 1e-6)}
        )


def test_long_groups_are_measured_by_importance() -> None:
    """Of methods that do not look at importance, too."""
    rng = np.random.default_rng(6)
    weights = rng.standard_normal((2, 150_001), np.float32)
    values = np.exp(2 * rng.standard_normal(150_001))
    table = table_of({"a": weights}, {"a": values})
    settings: dict[str, Any] = {"group_size": -1, "bit_width": 8}
    error = relative_error(weights, decoded(table, **settings)["a"], shares(weights, values))
    quantize_batch_arrow(table, **settings, quality_floor={"relative_error": error * (1 + 1e-6)})
    with pytest.warns(UserWarning, match="by importance"):
        quantize_batch_arrow(
            table, **settings, quality_floor={"relative_error": error * (1 - 1e-6)}
        )


def test_importance_that_no_method_looks_at_may_be_wrong() -> None:
    weights = {"a": np.linspace(-1, 1, 256).reshape(2, 128)}
    for values in (np.ones(5), np.full(128, -1.0)):
        table = table_of(weights, {"a": values})
        floored = quantize_batch_arrow(table, 2, quality_floor={"relative_error": 0.05})
        without = table.drop_columns("importance")
        assert (
            floored["bit_width"]
            == quantize_batch_arrow(without, 2, quality_floor={"relative_error": 0.05})["bit_width"]
        )
