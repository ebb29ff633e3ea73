"""Layers that cannot be compared: each is named, with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import plain, with_column
from corrupt import CORRUPT, WEIGHTS, result_with
from hostile import SOURCES

from comparison.compared import FINE, assert_errors_of_the_quantizer, failure, one
from pyarrowquant import (
    QuantizationError,
    compare,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch_arrow,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")

NAN, INF = float("nan"), float("inf")
SAME = "Replace such values first, for example with np.nan_to_num()"
TEXTS: list[tuple[Callable[[], pa.Table], Callable[[], pa.Table], str, tuple[Any, ...]]] = [
    (
        lambda: plain(["b", "a"], [FINE, FINE]),
        lambda: plain(["b", "c"], [FINE, FINE]),
        "In result: Layer 'c' is not in original. Give the table that was quantized",
        ("c", 1, None, "missing"),
    ),
    (
        lambda: one(FINE, [2, 2]),
        lambda: one([1.0, 2.0]),
        "In result: Layer 'a': Shape mismatch: shape [2] has 2 elements, "
        "shape [2, 2] in original has 4",
        ("a", 0, None, "shape_mismatch"),
    ),
    (
        lambda: one([1.0] * 6, [2, 1, 3]),
        lambda: one([1.0] * 6, [3, 2]),
        "In result: Layer 'a': Shape mismatch: shape [3, 2], in original it is [2, 1, 3]",
        ("a", 0, None, "shape_mismatch"),
    ),
    (
        lambda: plain(["b", "a", "a"], [FINE] * 3),
        lambda: one(FINE),
        "In original: Layer 'a' is there more than once, first in row 1. Keep one",
        ("a", 2, None, "duplicate"),
    ),
    (
        lambda: plain(["a", "b"], [FINE] * 2),
        lambda: plain(["a", "b", "a"], [FINE] * 3),
        "In result: Layer 'a' is there more than once, first in row 0. Keep one",
        ("a", 2, None, "duplicate"),
    ),
    (
        lambda: plain(["b", "a"], [FINE, [1.0, NAN, INF, 4.0]]),
        lambda: one(FINE),
        f"In original: Layer 'a' contains NaN or Inf at index 1 (NaN). {SAME}",
        ("a", 1, 1, "non_finite"),
    ),
    (
        lambda: with_column(one(FINE), "weights", pa.array([[1.0, 2.0, 4.0, -1e39]])),
        lambda: one(FINE),
        f"In original: Layer 'a' contains NaN or Inf at index 3 (-Inf). {SAME}",
        ("a", 0, 3, "non_finite"),
    ),
    (
        lambda: one(FINE),
        lambda: one([1.0, 2.0, INF, NAN]),
        "In result: Layer 'a' contains NaN or Inf at index 2 (Inf)",
        ("a", 0, 2, "non_finite"),
    ),
    (
        lambda: one(FINE),
        lambda: with_column(
            quantize_batch_arrow(one(FINE)), "scales", pa.array([[3e38]], pa.list_(pa.float32()))
        ),
        "In result: Layer 'a': the weight at index 0 decodes to Inf, as its group has the scale "
        "3e+38 and the zero-point 0. Quantize the layer again",
        ("a", 0, 0, "non_finite"),
    ),
    (
        lambda: with_column(one(FINE), "weights", pa.array([None], pa.list_(pa.float32()))),
        lambda: one(FINE),
        "In original: Layer 'a': weights is null in row 0",
        ("a", 0, None, "null"),
    ),
    (
        lambda: one(FINE),
        lambda: with_column(one(FINE), "weights", pa.array([[1.0, None, 3.0, 4.0]])),
        "In result: Layer 'a' contains null in weights at index 1. Fill such values first",
        ("a", 0, 1, "null"),
    ),
    (
        lambda: one(FINE),
        lambda: one(FINE, name=None),
        "In result: Layer in row 0: layer_name is null",
        (None, 0, None, "null"),
    ),
    (
        lambda: one(FINE),
        lambda: with_column(one(FINE), "shape", pa.array([[3]])),
        "In result: Layer 'a': Shape mismatch: shape [3] has 3 elements, weights has 4",
        ("a", 0, None, "shape_mismatch"),
    ),
    (
        lambda: one(FINE),
        lambda: with_column(
            quantize_batch_arrow(one(FINE)), "bit_width", pa.array([7], pa.uint8())
        ),
        "In result: Layer 'a': bit_width is 7, it must be 2, 3, 4, 5, 6 or 8",
        ("a", 0, None, "corrupt"),
    ),
]


@pytest.mark.parametrize(
    ("original", "result", "text", "fields"), TEXTS, ids=[text[:50] for _, _, text, _ in TEXTS]
)
def test_texts(
    original: Callable[[], pa.Table],
    result: Callable[[], pa.Table],
    text: str,
    fields: tuple[Any, ...],
) -> None:
    raised = failure(original(), result())
    assert str(raised) == text
    (error,) = raised.errors
    assert (error.layer_name, error.row, error.index, error.kind) == fields
    assert error.message == text


def test_all_failing_layers_in_one_exception() -> None:
    names = ["a", "b", "c", "d", "e"]
    original = plain(names, [FINE, [1, NAN], FINE, [INF], [1, 2]])
    result = plain(["e", "x", "d", "c", "b", "e"], [[1], FINE, [1], FINE, [NAN, 1], [1, 2]])
    raised = failure(original, result)
    assert [(e.layer_name, e.row, e.kind) for e in raised.errors] == [
        ("b", 1, "non_finite"),
        ("d", 3, "non_finite"),
        ("e", 0, "shape_mismatch"),
        ("x", 1, "missing"),
        ("b", 4, "non_finite"),
        ("e", 5, "duplicate"),
    ]
    tables = [e.message.split(":")[0] for e in raised.errors]
    assert tables == ["In original"] * 2 + ["In result"] * 4
    assert str(raised) == "\n  ".join(["6 layers failed:", *(e.message for e in raised.errors)])


def test_what_only_the_original_has_is_ignored() -> None:
    names = ["nan", None, "hole", "null", "shape", "a", "twice", "twice"]
    weights = [[NAN], [1.0], [1.0, None], None, [1.0, 2.0], FINE, FINE, FINE]
    shapes = [None, None, None, None, [3], [2, 2], None, None]
    original = pa.table([names, weights, shapes], schema=plain([], []).schema)
    with pytest.warns(UserWarning, match="Skipped"):
        result = quantize_batch_arrow(original, continue_on_error=True, metrics=True)
    result = result.filter(pa.array([n == "a" for n in result["layer_name"].to_pylist()]))
    assert_errors_of_the_quantizer(compare(original, result), result)


def test_what_is_needed_of_the_original_is_not() -> None:
    """A layer that cannot be read is not one that is missing, nor is a second one taken."""
    original = pa.table(
        {"layer_name": ["a", "a"], "weights": pa.array([None, FINE], pa.list_(pa.float32()))}
    )
    raised = failure(original, one(FINE))
    assert [(e.layer_name, e.row, e.kind) for e in raised.errors] == [("a", 0, "null")]


@pytest.mark.parametrize("index", [0, 7, 65535, 65536, 100_000, 299_999])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_non_finite_weights_of_many_units(value: float, index: int) -> None:
    good = np.ones((3, 100_000), np.float32)
    bad = good.copy()
    bad.ravel()[index:] = value
    fine, broken = numpy_to_arrow_table({"a": good}), numpy_to_arrow_table({"a": bad})
    for tables in ([fine, broken], [broken, fine]):
        for threads in (1, 3):
            with pytest.raises(QuantizationError) as caught:
                compare(*tables, threads=threads)
            assert [(e.index, e.kind) for e in caught.value.errors] == [(index, "non_finite")]


@pytest.mark.parametrize(("column", "value"), CORRUPT, ids=lambda value: repr(value)[:20])
def test_corrupt_results_are_refused_as_by_dequantize(column: str, value: Any) -> None:
    result = result_with(column, value)
    with pytest.raises(QuantizationError) as caught:
        dequantize_batch_arrow(result)
    raised = failure(plain(["a", "bad", "c"], [WEIGHTS] * 3), result)
    assert str(raised) == f"In result: {caught.value}"
    assert [e.kind for e in raised.errors] == [e.kind for e in caught.value.errors]


@pytest.mark.parametrize("what", SOURCES)
def test_hostile_tables(what: str) -> None:
    build, _ = SOURCES[what]
    with pytest.raises(ValueError, match=r"^In (original|result): |\n  In (original|result): "):
        compare(build(), build())


@pytest.mark.parametrize("shape", [[6], [2, 3], [2, 3, 1], [1, 2, 3], [2, 1, 3, 1], [6, 1]])
def test_shapes_of_the_same_rows_may_be_written_otherwise(shape: list[int]) -> None:
    errors = compare(one([1.0] * 6, [2, 3]), one([1.0] * 6, shape))
    assert errors["max_abs_error"].to_pylist() == [0.0]
