"""Errors of results against the original weights: exact, from any form, and every failure named."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import reference
from child import run_child
from conftest import OnlyArray, OnlyStream, plain, plain_layers, with_column
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import BIT_WIDTHS, SCALE_DTYPES, ZERO_POINTS, Array, layer_table
from test_hostile import SOURCES
from test_hostile_values import CORRUPT, WEIGHTS, result_with
from test_metrics import METRICS, TINY, assert_metrics, make_layers

from pyarrowquant import (
    QuantizationError,
    compare,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch_arrow,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")

NAN, INF = float("nan"), float("inf")
COMPARED = pa.schema(
    [
        ("layer_name", pa.string()),
        ("shape", pa.list_(pa.int64())),
        *((name, pa.float64()) for name in (*METRICS, "signal_to_noise_db", "norm")),
    ]
)
RAW = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def raw_table(layers: dict[str, Array], kind: str) -> pa.Table:
    """Raw bytes of a dtype."""
    return pa.table(
        {
            "layer_name": list(layers),
            "weights": pa.array([a.astype(RAW[kind]).tobytes() for a in layers.values()]),
            "dtype": [kind] * len(layers),
            "shape": pa.array([a.shape for a in layers.values()], pa.list_(pa.int64())),
        }
    )


def assert_errors_of_the_quantizer(compared: pa.Table, result: pa.Table) -> None:
    """To the bit, as equal float64 columns are: none is NaN and no -0.0 can be here."""
    assert compared["layer_name"].equals(result["layer_name"])
    assert compared["shape"].equals(result["shape"])
    for name in METRICS:
        assert compared[name].equals(result[name]), name


def assert_row(compared: pa.Table, row: int, weights: Array, decoded: Array) -> None:
    """A row has the oracle's errors."""
    actual = reference.Metrics(*(compared[name][row].as_py() for name in METRICS))
    assert_metrics(actual, reference.metrics(weights, decoded), weights.size)
    decibels = compared["signal_to_noise_db"][row].as_py()
    expected = reference.signal_to_noise_db(weights, decoded)
    assert decibels == pytest.approx(expected, rel=1e-12, abs=1e-9)
    norm = np.linalg.norm(weights.astype(np.float64).ravel())
    assert compared["norm"][row].as_py() == pytest.approx(norm, rel=1e-12)


def failure(original: Any, result: Any) -> QuantizationError:
    """Return what comparing raises."""
    with pytest.raises(QuantizationError) as caught:
        compare(original, result)
    return caught.value


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


def test_columns_and_types() -> None:
    table = layer_table(make_layers())
    result = quantize_batch_arrow(table)
    for other in (result, table):
        compared = compare(table, other)
        assert compared.schema.equals(COMPARED, check_metadata=True)
        assert all(column.null_count == 0 for column in compared.columns)
    assert compare(table[:0], result[:0]).equals(COMPARED.empty_table())
    assert compare(table, table[:0]).equals(COMPARED.empty_table())


def test_results_that_were_filtered_and_joined() -> None:
    layers = make_layers()
    table = layer_table(layers)
    narrow = quantize_batch_arrow(table, 2, group_size=-1, sort=False, metrics=True)
    wide = quantize_batch_arrow(table, 8, group_size=8, sort=False, metrics=True)
    mixed = pa.concat_tables([wide[3:9], narrow[:3], narrow[9:]])
    assert_errors_of_the_quantizer(compare(table, mixed), mixed)
    backwards = mixed.take(list(range(mixed.num_rows))[::-1])
    assert_errors_of_the_quantizer(compare(table, backwards), backwards)


@pytest.mark.parametrize("original", ["F16", "BF16"])
@pytest.mark.parametrize("form", ["quantized", "decoded"])
def test_original_bytes_of_two(original: str, form: str) -> None:
    table = raw_table(make_layers(), original)
    result = quantize_batch_arrow(table, 3, metrics=True)
    other = result if form == "quantized" else dequantize_batch_arrow(result)
    assert_errors_of_the_quantizer(compare(table, other), result)


def test_original_of_float64_is_rounded() -> None:
    doubles = np.random.default_rng(1).standard_normal((30, 100))
    table = layer_table({"a": doubles}, pa.list_(pa.float64()))
    result = quantize_batch_arrow(table, metrics=True)
    assert_errors_of_the_quantizer(compare(table, result), result)
    compared = compare(table, layer_table({"a": doubles.astype(np.float32)}))
    assert compared["max_abs_error"].to_pylist() == [0.0]


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


LISTS: list[Callable[[pa.DataType], pa.DataType]] = [
    pa.list_,
    pa.large_list,
    pa.list_view,
    pa.large_list_view,
]


@pytest.mark.parametrize("element", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("make_list", LISTS, ids=lambda make: make.__name__)
def test_lists(
    make_list: Callable[[pa.DataType], pa.DataType],
    element: pa.DataType,
    layers: dict[str, np.ndarray],
) -> None:
    table = plain_layers(layers)
    values = [np.array(row, element.to_pandas_dtype()) for row in table["weights"].to_pylist()]
    other = with_column(table, "weights", pa.array(values, make_list(element)))
    result = quantize_batch_arrow(table, metrics=True)
    assert_errors_of_the_quantizer(compare(other, result), result)
    assert compare(table, other)["mse"].to_pylist() == [0.0] * len(layers)


def test_names_shapes_and_fixed_lists() -> None:
    array = np.random.default_rng(2).standard_normal((4, 6), np.float32)
    expected = compare(plain(list("abcd"), list(array)), plain(list("abcd"), list(array / 2)))
    names = pa.array(list("abcd")).dictionary_encode()
    lists = pa.FixedSizeListArray.from_arrays(pa.array((array / 2).ravel()), 6)
    for name_type in (pa.large_string(), pa.string_view()):
        original = plain(list("abcd"), list(array)).drop_columns("shape")
        original = with_column(original, "layer_name", pa.array(list("abcd"), name_type))
        shapes = pa.array([[6]] * 4, pa.large_list(pa.int32()))
        for columns in ({}, {"shape": pa.nulls(4)}, {"shape": shapes}):
            result = pa.table({"layer_name": names, "weights": lists, **columns})
            assert compare(original, result).equals(expected)


@pytest.mark.parametrize(
    "source",
    [
        OnlyStream,
        lambda table: OnlyArray(table.combine_chunks().to_batches()[0]),
        lambda table: table.combine_chunks().to_batches()[0],
        lambda table: table.to_reader(max_chunksize=2),
        lambda table: pa.concat_tables(table[row : row + 1] for row in range(table.num_rows)),
        pl.from_arrow,
        lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
    ],
    ids=["stream", "array", "batch", "reader", "chunks", "polars", "pandas"],
)
def test_sources(source: Callable[[pa.Table], Any], layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    result = quantize_batch_arrow(table)
    expected = compare(table, result)
    assert compare(source(table), source(result)).equals(expected)
    assert compare(source(table), source(dequantize_batch_arrow(result))).equals(expected)


def test_every_source_is_read_once(layers: dict[str, np.ndarray]) -> None:
    original, result = OnlyStream(plain_layers(layers)), OnlyStream(plain_layers(layers))
    compare(original, result)
    assert (original.calls, result.calls) == (1, 1)


def test_a_table_with_codes_and_weights_is_a_result() -> None:
    table = layer_table({"a": np.array([1.0, 2.0])})
    result = quantize_batch_arrow(table, metrics=True)
    both = result.append_column("weights", pa.array([[7.0, 7.0]], pa.list_(pa.float32())))
    assert_errors_of_the_quantizer(compare(table, both), result)


def test_columns_that_are_not_looked_at() -> None:
    table = layer_table({"a": np.array([1.0, 2.0])})
    odd = table.append_column("importance", pa.array(["x"])).append_column("note", pa.array([1]))
    assert compare(odd, odd).equals(compare(table, table))


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


def test_nothing_is_decoded_as_a_whole() -> None:
    run_child("""
        import resource
        weights = big_table(128)
        result = pyarrowquant.quantize_batch_arrow(weights)
        pyarrowquant.compare(table(), table())
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        before = peak()
        for other in (result, weights):
            pyarrowquant.compare(weights, other)
            assert peak() - before < 24, (before, peak())
        del result
        assert nothing_left()
    """)


def test_tables_are_released_whatever_happens() -> None:
    run_child("""
        import weakref
        class Owner(np.ndarray):
            pass

        def weights(last=1.0):
            array = np.ones(100_000, np.float32).view(Owner)
            array[-1] = last
            owners.append(weakref.ref(array))
            return pyarrowquant.numpy_to_arrow_table({"a": array})

        owners = []
        nan = float("nan")
        for original, result in ((1.0, 1.0), (nan, 1.0), (1.0, nan), (nan, nan)):
            try:
                pyarrowquant.compare(weights(original), weights(result))
            except pyarrowquant.QuantizationError:
                pass
        for original, result in ((weights(), 3), (3, weights()), (weights(), table("b"))):
            try:
                pyarrowquant.compare(original, result)
            except (TypeError, ValueError):
                pass
        del original, result
        gc.collect()
        assert len(owners) == 11 and not any(owner() is not None for owner in owners)
        assert nothing_left()
    """)


# What is wrong with layers


def one(weights: list[Any], shape: list[int] | None = None, name: str | None = "a") -> pa.Table:
    return plain([name], [np.array(weights).reshape(shape or [-1])])


FINE = [1.0, 2.0, 4.0, 8.0]
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
        "In result: Layer 'a': the weight at index 0 decodes to Inf",
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


# Arguments and schemas


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({}, "Missing required column 'layer_name'"),
        ({"layer_name": ["a"]}, "Missing required column 'weights'. Expected schema: "),
        (
            {"layer_name": ["a"], "weights": [1.5]},
            "Column 'weights' has type double (float64); expected type list<float32>",
        ),
        ({"layer_name": ["a"], "weights": [b"1234"]}, "Missing required column 'dtype'"),
        ({"layer_name": [1], "weights": [FINE]}, "Column 'layer_name' has type int64"),
    ],
)
def test_schemas_that_do_not_fit(columns: dict[str, Any], text: str) -> None:
    wrong = pa.table(columns)
    with pytest.raises(ValueError, match=f"^In original: {re.escape(text)}") as caught:
        compare(wrong, one(FINE))
    assert not isinstance(caught.value, QuantizationError)
    if "weights" in columns:
        with pytest.raises(ValueError, match=f"^In result: {re.escape(text)}"):
            compare(one(FINE), wrong)


def test_what_is_no_result() -> None:
    text = "^In result: Missing required column 'quantized_data' or 'weights'. Expected schema: "
    for columns in (["layer_name", "scales"], ["layer_name"], []):
        with pytest.raises(ValueError, match=text):
            compare(one(FINE), quantize_batch_arrow(one(FINE)).select(columns))
    for column in ("layer_name", "scales", "zero_points", "shape", "bit_width", "group_size"):
        result = quantize_batch_arrow(one(FINE)).drop_columns(column)
        with pytest.raises(ValueError, match=f"^In result: Missing required column '{column}'"):
            compare(one(FINE), result)


@pytest.mark.parametrize("thing", [None, {"a": 1}, 3, "table"], ids=repr)
def test_what_is_no_table(thing: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^In original: Expected an Arrow table"):
        compare(thing, one(FINE))
    with pytest.raises((ValueError, TypeError), match=r"^In result: Expected an Arrow table"):
        compare(one(FINE), thing)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_out_of_bounds(threads: int) -> None:
    with pytest.raises(ValueError, match=f"^Invalid threads: {threads}. Must be at least 1"):
        compare(one(FINE), one(FINE), threads=threads)


@pytest.mark.parametrize("threads", ["2", 1.0, True])
def test_threads_of_a_wrong_type(threads: Any) -> None:
    with pytest.raises(TypeError, match="threads must be an int"):
        compare(one(FINE), one(FINE), threads=threads)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, TypeError])
@pytest.mark.parametrize("table", ["original", "result"])
def test_source_that_fails(table: str, error: type[Exception]) -> None:
    def batches() -> Any:
        yield one(FINE).to_batches()[0]
        raise error("gone")

    reader = pa.RecordBatchReader.from_batches(one(FINE).schema, batches())
    tables = [reader, one(FINE)] if table == "original" else [one(FINE), reader]
    with pytest.raises(error, match="gone"):
        compare(*tables)
