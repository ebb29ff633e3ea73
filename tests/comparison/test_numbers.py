"""Errors of results against the original weights, to the bit or as exact as sums can be."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics import METRICS, TINY, make_layers
from reference import BIT_WIDTHS, SCALE_DTYPES, ZERO_POINTS, layer_table

from comparison.compared import (
    COMPARED,
    RAW,
    assert_errors_of_the_quantizer,
    assert_row,
    failure,
    raw_table,
)
from pyarrowquant import compare, dequantize_batch_arrow, quantize_batch_arrow

pytestmark = pytest.mark.usefixtures("nothing_leaked")

NAN, INF = float("nan"), float("inf")


# Results of this package


@pytest.mark.parametrize("group_size", [8, 24, 128, 4096, -1])
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_errors_are_those_of_the_quantizer(
    bit_width: int, zero_point: str, group_size: int
) -> None:
    table = layer_table(make_layers())
    result = quantize_batch_arrow(
        table, bit_width, group_size=group_size, zero_point=zero_point, metrics=True
    )
    assert_errors_of_the_quantizer(compare(table, result), result)


@pytest.mark.parametrize("method", ["mse", "hqq"])
@pytest.mark.parametrize("group_size", [24, 128, 4096])
def test_errors_of_other_methods_are_those_of_the_quantizer(method: str, group_size: int) -> None:
    table = layer_table(make_layers())
    result = quantize_batch_arrow(table, group_size=group_size, method=method, metrics=True)
    assert_errors_of_the_quantizer(compare(table, result), result)


@pytest.mark.parametrize("kernel", ["scalar", ""])
@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
def test_every_kernel_and_scale(
    scale_dtype: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = layer_table(make_layers())
    result = quantize_batch_arrow(table, 5, scale_dtype=scale_dtype, metrics=True)
    monkeypatch.setenv("PYARROWQUANT_KERNEL", kernel)
    assert_errors_of_the_quantizer(compare(table, result), result)


@pytest.mark.parametrize("group_size", [8, 128, 4096, -1])
def test_errors_of_decoded_layers_are_those_of_the_quantizer(group_size: int) -> None:
    table = layer_table(make_layers())
    result = quantize_batch_arrow(table, group_size=group_size, metrics=True)
    compared = compare(table, dequantize_batch_arrow(result))
    assert_errors_of_the_quantizer(compared, result)
    assert compared.equals(compare(table, result))


@pytest.mark.parametrize(
    ("group_size", "method"), [(24, "rtn"), (70008, "rtn"), (70008, "mse"), (-1, "hqq")]
)
def test_sums_in_another_order_are_as_good(group_size: int, method: str) -> None:
    """Where units of over 65536 columns cannot be cut as the quantizer did."""
    table = layer_table(make_layers())
    result = quantize_batch_arrow(table, group_size=group_size, method=method, metrics=True)
    for compared in (compare(table, result), compare(table, dequantize_batch_arrow(result))):
        for name in METRICS:
            assert compared[name].to_pylist() == pytest.approx(
                result[name].to_pylist(), rel=1e-12, abs=0
            )


# Results of others


def test_worked_by_hand() -> None:
    original = layer_table({"a": np.array([3.0, 4.0, 0.0]), "b": np.array([1.0, 0.0])})
    decoded = layer_table({"b": np.array([0.0, 1.0]), "a": np.array([3.0, 4.5, 0.0])})
    assert compare(original, decoded).to_pylist() == [
        {
            "layer_name": "b",
            "shape": [2],
            "mse": 1.0,
            "relative_error": math.sqrt(2),
            "cosine": 0.0,
            "max_abs_error": 1.0,
            "signal_to_noise_db": pytest.approx(-10 * math.log10(2), rel=1e-14),
            "norm": 1.0,
        },
        {
            "layer_name": "a",
            "shape": [3],
            "mse": 0.25 / 3,
            "relative_error": 0.1,
            "cosine": pytest.approx(27 / (5 * math.sqrt(9 + 4.5**2)), rel=1e-14),
            "max_abs_error": 0.5,
            "signal_to_noise_db": pytest.approx(20, rel=1e-14),
            "norm": 5.0,
        },
    ]


@pytest.mark.parametrize("kind", ["float32", "F16", "BF16", "float64"])
def test_decoded_elsewhere(kind: str) -> None:
    layers = make_layers()
    rng = np.random.default_rng(8)
    decoded = {n: (a * (1 + rng.normal(0, 0.03, a.shape))) for n, a in layers.items()}
    decoded = {n: np.asarray(a) for n, a in decoded.items()}
    if kind in RAW:
        table = raw_table(decoded, kind)
        decoded = {n: a.astype(RAW[kind]).astype(np.float32) for n, a in decoded.items()}
    else:
        table = layer_table(decoded, pa.list_(pa.float64() if kind == "float64" else pa.float32()))
        decoded = {n: a.astype(np.float32) for n, a in decoded.items()}
    compared = compare(layer_table(layers), table)
    assert compared["layer_name"].to_pylist() == list(layers)
    for row, (name, weights) in enumerate(layers.items()):
        assert_row(compared, row, weights, decoded[name])


def test_decoding_by_the_formula_is_decoding() -> None:
    layers = make_layers()
    table = layer_table(layers)
    result = quantize_batch_arrow(table, 3, sort=False, metrics=True)
    decoded = {
        name: reference.dequantize(reference.stored(result, row), array.shape, 3, 128)
        for row, (name, array) in enumerate(layers.items())
    }
    assert_errors_of_the_quantizer(compare(table, layer_table(decoded)), result)
    compared = compare(table, result)
    for row, (name, weights) in enumerate(layers.items()):
        assert_row(compared, row, weights, decoded[name])


# Zeros, empty layers and the ends of float32


def test_layers_of_zeros_and_empty_layers() -> None:
    zeros = {"zeros": np.zeros((3, 129)), "minus": np.full(9, -0.0), "scalar": np.zeros(())}
    zeros |= {f"{shape}": np.empty(shape) for shape in [(0,), (0, 5), (3, 0)]}
    table = layer_table(zeros)
    for result in (quantize_batch_arrow(table, sort=False), table):
        compared = compare(table, result)
        assert compared["layer_name"].to_pylist() == list(zeros)
        for row in compared.drop_columns(["layer_name", "shape"]).to_pylist():
            assert list(row.values()) == [0.0, 0.0, 1.0, 0.0, INF, 0.0]


def test_one_side_of_zeros() -> None:
    zeros, ones = layer_table({"a": np.zeros(4)}), layer_table({"a": np.ones(4)})
    columns = COMPARED.names[2:]
    assert [compare(zeros, ones)[n][0].as_py() for n in columns] == [1.0, INF, 0.0, 1.0, -INF, 0.0]
    assert [compare(ones, zeros)[n][0].as_py() for n in columns] == [1.0, 1.0, 0.0, 1.0, 0.0, 2.0]


def test_ends_of_float32() -> None:
    largest = np.finfo(np.float32).max
    pairs = {
        "largest": ([largest] * 3, [-largest] * 3),
        "smallest": ([TINY, -TINY, 0], [2 * TINY, 0, TINY]),
        "both": ([largest, TINY], [TINY, largest]),
    }
    arrays = {name: [np.array(x, np.float32) for x in pair] for name, pair in pairs.items()}
    compared = compare(
        layer_table({name: pair[0] for name, pair in arrays.items()}),
        layer_table({name: pair[1] for name, pair in arrays.items()}),
    )
    for row, (weights, decoded) in enumerate(arrays.values()):
        assert_row(compared, row, weights, decoded)
        assert all(math.isfinite(compared[n][row].as_py()) for n in COMPARED.names[2:])


# Threads, chunks, memory


@pytest.mark.parametrize("form", ["quantized", "decoded", "halves"])
def test_threads_and_chunks_change_nothing(form: str) -> None:
    layers = make_layers() | {"many rows": np.ones((3000, 90), np.float32)}
    table = layer_table(layers)
    result = quantize_batch_arrow(table, 3, group_size=64)
    if form == "decoded":
        result = dequantize_batch_arrow(result)
    elif form == "halves":
        small = {name: array for name, array in layers.items() if abs(array).max(initial=0) < 6e4}
        result = raw_table(small, "F16")
    expected = compare(table, result, threads=1)
    for threads in (2, 3, 8):
        assert compare(table, result, threads=threads).equals(expected)
    rows = [result.slice(row, 1) for row in range(result.num_rows)]
    one_by_one = [compare(table, row) for row in rows]
    assert pa.concat_tables(one_by_one).equals(expected)
    originals = [table.slice(row, 1) for row in range(table.num_rows)]
    assert compare(pa.concat_tables(originals[::-1]), pa.concat_tables(rows)).equals(expected)


# What is wrong with layers


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    values=st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), max_size=40),
    columns=st.integers(1, 20),
)
def test_fuzz_values(values: list[tuple[float, float]], columns: int) -> None:
    values = values[: len(values) // columns * columns] if len(values) > columns else values
    shape = (len(values) // columns, columns) if len(values) > columns else (len(values),)
    weights, decoded = (
        np.array([pair[side] for pair in values], np.float32).reshape(shape) for side in (0, 1)
    )
    tables = layer_table({"a": weights}), layer_table({"a": decoded})
    if np.isfinite(weights).all() and np.isfinite(decoded).all():
        assert_row(compare(*tables), 0, weights, decoded)
    else:
        raised = failure(*tables)
        assert [e.kind for e in raised.errors] == ["non_finite"] * len(raised.errors)
        sides = [not np.isfinite(weights).all(), not np.isfinite(decoded).all()]
        assert len(raised.errors) == sum(sides)
