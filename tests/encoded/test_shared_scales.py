"""fp8 with a scale of the whole tensor, and of blocks of 128 rows and columns: its numbers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
import reference
from conftest import with_column
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import by_kernel, quantized

from encoded import oracle
from encoded.material import KINDS, column, families, raw, squared_error, table_of, weights_of
from pyarrowquant import (
    QuantizationError,
    compare,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch_arrow,
    quantize_stream,
)

# Some of their weights are so small that scales vanish, which is said.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.* rounds to 0"),
    pytest.mark.usefixtures("nothing_leaked"),
]

SHARED = ("tensor", "block")
each_shared = pytest.mark.parametrize("shared", SHARED)
# Blocks are cut at the ends of rows and columns, some to a single one.
SHAPES = [(), (7,), (1000,), (3, 40), (128, 128), (129, 257), (200, 300), (300, 1), (3, 20, 50)]
EMPTY = [(0,), (0, 5), (3, 0)]
shapes = st.one_of(
    st.tuples(st.integers(0, 500)),
    st.tuples(st.integers(1, 300), st.integers(0, 300)),
    st.tuples(st.integers(1, 140), st.integers(1, 5), st.integers(1, 60)),
)


def fp8(table: Any, shared: str, **options: Any) -> pa.Table:
    return quantize_batch_arrow(table, encoding="fp8", group_size=shared, **options)


def layers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {f"normal {shape}": rng.standard_normal(shape) for shape in SHAPES}
    found |= {f"empty {shape}": np.empty(shape) for shape in EMPTY}
    for columns in (100, 300):
        rows = list(families(columns))
        found |= {f"{i}, {columns} columns": np.tile(row, (150, 1)) for i, row in enumerate(rows)}
        found[f"all, {columns} columns"] = np.array(rows * 11)
    return {name: np.asarray(weights, np.float32) for name, weights in found.items()}


@each_shared
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_bytes(shared: str, dtype: str) -> None:
    result = quantized(layers(), encoding="fp8", group_size=shared, scale_dtype=dtype)
    decoded = dequantize_batch_arrow(result)["weights"]
    size = {"tensor": -1, "block": 128}[shared]
    assert set(result["group_size"].to_pylist()) == {size}
    assert result["zero_points"].null_count == len(result)
    for row, (layer, weights) in enumerate(layers().items()):
        wanted = oracle.encode_shared(weights, shared, dtype)
        assert np.array_equal(column(result, "super_scales", row), wanted.super_scales), layer
        assert np.array_equal(column(result, "scales", row), wanted.scales), layer
        assert result["quantized_data"][row].as_py() == wanted.codes.tobytes(), layer
        assert result["super_scales"][row].is_valid
        rows, columns = reference.matrix_shape(weights.shape)
        values = oracle.E4M3[wanted.codes]
        values = values * reference.spread(wanted.scales, rows, columns, size)
        assert np.array_equal(decoded[row].values.to_numpy(), values.ravel()), layer


@each_shared
@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize(
    "largest", [float(np.finfo(np.float32).max), 3e38, 1e30, 1e-30, 1e-38, 1e-44]
)
def test_extremes_decode_to_numbers(shared: str, method: str, largest: float) -> None:
    weights = np.linspace(-1, 1, 300 * 300, dtype=np.float32).reshape(300, 300)
    weights *= np.float32(largest)
    result = fp8(table_of(weights), shared, method=method)
    if method == "rtn":
        assert np.array_equal(
            column(result, "super_scales", 0), oracle.encode_shared(weights, shared).super_scales
        )
    bound = largest / 14 if largest > 1e-40 else largest
    assert squared_error(weights, result).max() <= bound**2


@each_shared
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(300, 700), (2, 150_000)])
def test_numbers_that_are_none_are_refused_with_their_place(
    shared: str, bad: float, shape: tuple[int, int]
) -> None:
    weights = np.ones(shape, np.float32)
    weights[-1, 500], weights[-1, -1] = bad, np.nan  # in two blocks
    index = (shape[0] - 1) * shape[1] + 500
    table = pa.concat_tables([table_of(weights), table_of(np.ones((5, 5)))])
    table = table.set_column(0, "layer_name", [["bad", "good"]])
    for method in ("rtn", "mse"):
        with pytest.raises(QuantizationError, match=rf"Layer 'bad'.* at index {index} ") as caught:
            fp8(table, shared, method=method)
        assert [error.layer_name for error in caught.value.errors] == ["bad"]


def test_a_scale_beyond_its_dtype_names_its_block() -> None:
    weights = np.ones((200, 300), np.float32)
    weights[150, 270] = 1e30
    with pytest.raises(QuantizationError, match=f"at index {128 * 300 + 256} is beyond") as caught:
        fp8(table_of(weights), "block", scale_dtype="float16")
    assert "Use scale_dtype='float32'" in str(caught.value)
    with pytest.raises(QuantizationError, match="at index 0 is beyond"):
        fp8(table_of(weights), "tensor", scale_dtype="float16")
    fp8(table_of(weights), "block", scale_dtype="float32")


@each_shared
def test_scales_that_vanish_are_counted(shared: str) -> None:
    weights = np.full((200, 300), 1e-9, np.float32)
    count = {"tensor": 1, "block": 6}[shared]
    with pytest.warns(UserWarning, match=rf"'w' \({count}\)|{count} group"):
        result = fp8(table_of(weights), shared, scale_dtype="float16")
    assert not dequantize_batch_arrow(result)["weights"][0].values.to_numpy().any()


@each_shared
@settings(max_examples=40, deadline=None)
@given(shape=shapes, kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32 - 1))
def test_the_search_is_never_worse(
    shared: str, shape: tuple[int, ...], kind: str, seed: int
) -> None:
    weights = weights_of(shape, kind, seed)
    plain, searched = (fp8(table_of(weights), shared, method=method) for method in ("rtn", "mse"))
    before, after = squared_error(weights, plain), squared_error(weights, searched)
    assert after.sum() <= before.sum() * (1 + 1e-6)
    rows, columns = reference.matrix_shape(weights.shape)
    for area in oracle.areas(rows, columns, shared):
        old, new = (each.reshape(rows, columns)[area].sum() for each in (before, after))
        assert new <= old * (1 + 1e-6)


@each_shared
def test_the_search_finds_what_there_is(shared: str) -> None:
    """Of all scales of an octave, none leaves a part of fifty less."""
    weights = np.random.default_rng(5).standard_t(4, (100, 100)).astype(np.float32)
    found = squared_error(weights, fp8(table_of(weights), shared, method="mse")).sum()
    plain = oracle.encode_shared(weights, shared).super_scales[0]
    errors = []
    for scale in plain * np.exp2(np.linspace(0, 1, 200, dtype=np.float32)):
        levels = (weights / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        errors.append(np.square((levels * scale - weights).astype(np.float64)).sum())
    assert found <= min(errors) * 1.02


@each_shared
@settings(max_examples=10, deadline=None)
@given(shape=shapes, kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32 - 1))
def test_kernels_and_threads_give_the_same_bytes(
    shared: str, shape: tuple[int, ...], kind: str, seed: int
) -> None:
    table = table_of(weights_of(shape, kind, seed))
    for method in ("rtn", "mse"):
        said: dict[str, Any] = {"encoding": "fp8", "group_size": shared, "method": method}
        results = list(by_kernel(table, metrics=True, **said))
        results.append(quantize_batch_arrow(table, metrics=True, threads=5, **said))
        assert len({str(raw(result)) for result in results}) == 1


@each_shared
@pytest.mark.parametrize("shape", [(700, 900), (9, 140_000)])
@pytest.mark.parametrize("method", ["rtn", "mse"])
def test_large_layers_do_not_depend_on_threads_or_streams(
    shared: str, shape: tuple[int, int], method: str
) -> None:
    """Of many units, each of which has a part of the tensor or some blocks."""
    weights = np.random.default_rng(1).standard_normal(shape, np.float32)
    table = pa.concat_tables([table_of(weights), table_of(weights[:3, :70])])
    importance = pa.array([np.arange(n) % 5 + 0.5 for n in (shape[1], 70)])
    for each in (table, table.append_column("importance", importance)):
        one, many = (
            fp8(each, shared, method=method, threads=threads, metrics=True) for threads in (1, 7)
        )
        stream = quantize_stream(
            each.to_reader(max_chunksize=1),
            encoding="fp8",
            group_size=shared,
            method=method,
            metrics=True,
        )
        assert one.equals(many)
        assert stream.read_all().combine_chunks().equals(one.combine_chunks())
    if method == "rtn":
        assert np.array_equal(
            column(one, "super_scales", 0), oracle.encode_shared(weights, shared).super_scales
        )


@each_shared
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_are_as_float32(shared: str, dtype: type) -> None:
    weights = np.random.default_rng(2).standard_normal((140, 300)).astype(dtype)
    if dtype is np.float64:
        values = pa.array([weights.ravel()], pa.list_(pa.float64()))
        table = pa.table({"layer_name": ["w"], "weights": values, "shape": [[140, 300]]})
    else:
        table = numpy_to_arrow_table({"w": weights})
    widened = table_of(weights.astype(np.float32))
    for method in ("rtn", "mse"):
        assert raw(fp8(table, shared, method=method)) == raw(fp8(widened, shared, method=method))


@each_shared
def test_importance_moves_error_to_what_is_not_important(shared: str) -> None:
    weights = np.random.default_rng(3).standard_t(3, (150, 500)).astype(np.float32)
    weights[:, ::4] /= 7  # which decides, so that another scale is better
    importance = np.where(np.arange(500) % 4 == 0, 1.0, 0.001)
    table = table_of(weights)
    weighed = table.append_column("importance", [[importance.tolist()]])
    results = [fp8(each, shared, method="mse") for each in (table, weighed)]
    errors = [
        (squared_error(weights, result).reshape(150, 500) * importance).sum() for result in results
    ]
    assert errors[1] <= errors[0] * (1 + 2**-10)
    assert raw(results[0]) != raw(results[1])
    alike = table.append_column("importance", [[[0.5] * 500]])
    assert raw(fp8(alike, shared, method="mse")) == raw(results[0])


def test_matrices_of_a_stack_have_an_importance_each() -> None:
    rng = np.random.default_rng(3)
    stack = rng.standard_t(3, (3, 20, 256)).astype(np.float32)
    stack[..., ::4] /= 7
    matters = np.where(np.arange(256) % 4 == 0, 1.0, 0.001)

    def coded(weights: np.ndarray, importance: np.ndarray) -> pa.Table:
        given = [[importance.ravel().tolist()]]
        return fp8(table_of(weights).append_column("importance", given), "block", method="mse")

    alike = coded(stack, np.tile(matters, (3, 1)))
    flat = coded(stack.reshape(3, -1), np.tile(matters, 20))
    for name in ("quantized_data", "scales"):
        assert alike[name].to_pylist() == flat[name].to_pylist()

    each = rng.permuted(np.tile(matters, (3, 1)), axis=1)
    errors = [
        (squared_error(stack, coded(stack, given)).reshape(stack.shape) * each[:, None]).sum()
        for given in (each, each[::-1], each[[1, 2, 0]])
    ]
    assert errors[0] <= min(errors[1:]) * (1 + 2**-10)


@each_shared
def test_errors_are_those_of_the_weights(shared: str) -> None:
    weights = np.random.default_rng(4).standard_normal((200, 300), np.float32)
    table = table_of(weights)
    result = fp8(table, shared, method="mse", metrics=True)
    squared = squared_error(weights, result)
    assert result["mse"][0].as_py() == pytest.approx(squared.mean(), rel=1e-9)
    compared = compare(table, result)
    for metric in ("mse", "relative_error", "cosine", "max_abs_error"):
        assert compared[metric][0].as_py() == pytest.approx(result[metric][0].as_py(), rel=1e-9)


def first(change: Any) -> Any:
    return lambda values: [change(values[0]), *values[1:]]


CORRUPT: list[tuple[str, str, Any, str]] = [
    ("tensor", "super_scales", [1.0, 1.0], "super_scales has 2 values"),
    ("tensor", "super_scales", [1.0], "the scale of group 0 is"),
    ("tensor", "super_scales", [float("nan")], ""),
    ("tensor", "scales", first(lambda scale: scale * 2), "the scale of group 0 is"),
    ("tensor", "group_size", 64, ""),
    ("block", "super_scales", [1.0], "super_scales has 1 values"),
    ("block", "super_scales", first(lambda scale: scale * 2), "the scale of group 0 is"),
    ("block", "super_scales", lambda values: [*values[:-1], 1.0], "the scale of group 386 is"),
    ("block", "scales", lambda values: [*values[:-1], 1.0], "the scale of group 449 is 1"),
    ("block", "super_minimums", [1.0] * 6, "super_minimums has 6 values"),
    ("block", "encoding", "mxfp8", "group_size is 128, encoding 'mxfp8' has 32"),
]


@pytest.mark.parametrize(("shared", "name", "value", "text"), CORRUPT)
def test_corrupt_rows_are_refused(shared: str, name: str, value: Any, text: str) -> None:
    weights = np.random.default_rng(4).standard_normal((150, 300), np.float32)
    result = fp8(table_of(weights), shared)
    values = [value(result[name][0].as_py()) if callable(value) else value]
    broken = with_column(result, name, pa.array(values, result.schema.field(name).type))
    for read in (dequantize_batch_arrow, lambda each: compare(table_of(weights), each)):
        with pytest.raises(QuantizationError, match="Layer 'w'") as caught:
            read(broken)
        assert text in str(caught.value)
