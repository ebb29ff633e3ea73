"""What holds for every encoding, whatever the weights and their shape."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from conftest import attempt
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import by_kernel

from encoded import oracle
from encoded.fixed import FIXED
from encoded.material import KINDS, raw, squared_error, table_of, weights_of
from pyarrowquant import (
    QuantizationError,
    compare,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch_arrow,
)
from pyarrowquant.conversion.result_files import open_results
from pyarrowquant.formats.tables import write_batches

# Some of their weights are so small that scales vanish, which is said.
pytestmark = pytest.mark.filterwarnings("ignore:.* rounds to 0")

shapes = st.one_of(
    st.tuples(st.integers(0, 700)),
    st.tuples(st.integers(1, 5), st.integers(0, 700)),
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 90)),
)


@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("name", FIXED)
@given(shape=shapes, kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32 - 1))
def test_the_search_is_never_worse(name: str, shape: tuple[int, ...], kind: str, seed: int) -> None:
    weights = weights_of(shape, kind, seed)
    plain, searched = (
        quantize_batch_arrow(table_of(weights), encoding=name, method=method)
        for method in ("rtn", "mse")
    )
    before, after = squared_error(weights, plain).sum(), squared_error(weights, searched).sum()
    assert after <= before * (1 + 1e-6)
    if kind == "zeros":
        assert after == 0


@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("name", FIXED)
@given(shape=shapes, kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32 - 1))
def test_kernels_and_threads_give_the_same_bytes(
    name: str, shape: tuple[int, ...], kind: str, seed: int
) -> None:
    table = table_of(weights_of(shape, kind, seed))
    for method in ("rtn", "mse"):
        results = list(by_kernel(table, encoding=name, method=method, metrics=True))
        results.append(
            quantize_batch_arrow(table, encoding=name, method=method, metrics=True, threads=5)
        )
        assert len({str(raw(result)) for result in results}) == 1


@pytest.mark.parametrize("name", FIXED)
def test_a_large_layer_does_not_depend_on_threads(name: str) -> None:
    weights = np.random.default_rng(1).standard_normal((9, 40_000), np.float32)
    for method in ("rtn", "mse"):
        one, many = (
            quantize_batch_arrow(
                table_of(weights), encoding=name, method=method, threads=threads, metrics=True
            )
            for threads in (1, 7)
        )
        for column in one.column_names:
            assert str(one[column].to_pylist()) == str(many[column].to_pylist()), column


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_are_as_float32(name: str, dtype: type) -> None:
    weights = np.random.default_rng(2).standard_normal((5, 300)).astype(dtype)
    if dtype is np.float64:
        column = pa.array([weights.ravel()], pa.list_(pa.float64()))
        table = pa.table({"layer_name": ["w"], "weights": column, "shape": [[5, 300]]})
    else:
        table = numpy_to_arrow_table({"w": weights})
    widened = table_of(weights.astype(np.float32))
    for method in ("rtn", "mse"):
        result, wanted = (
            quantize_batch_arrow(each, encoding=name, method=method) for each in (table, widened)
        )
        assert raw(result) == raw(wanted)


@pytest.mark.parametrize("name", FIXED)
def test_importance_moves_error_to_what_is_not_important(name: str) -> None:
    weights = np.random.default_rng(3).standard_t(3, (16, 512)).astype(np.float32)
    importance = np.where(np.arange(512) % 4 == 0, 1.0, 0.001)
    table = table_of(weights)
    weighed = table.append_column("importance", [[importance.tolist()]])
    results = [quantize_batch_arrow(each, encoding=name, method="mse") for each in (table, weighed)]
    errors = [
        (squared_error(weights, result).reshape(16, 512) * importance).sum() for result in results
    ]
    # what is gained must be beyond rounding, or the scale stays
    assert errors[1] < errors[0] * (1 + 2**-10)
    assert raw(results[0]) != raw(results[1])
    alike = table.append_column("importance", [[[0.5] * 512]])
    assert raw(quantize_batch_arrow(alike, encoding=name, method="mse")) == raw(
        quantize_batch_arrow(table, encoding=name, method="mse")
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-38, 1e-44, 1e30])
@pytest.mark.parametrize("name", FIXED)
def test_extremes_decode_to_numbers_or_are_refused(name: str, scale: float) -> None:
    weights = np.random.default_rng(4).standard_normal((3, 300)) * scale
    table = table_of(weights.astype(np.float32))
    for method in ("rtn", "mse"):
        result = attempt(quantize_batch_arrow, table, encoding=name, method=method)
        if scale > 1 and isinstance(result, QuantizationError):
            assert f"encoding '{name}'" in str(result)
            continue
        assert squared_error(weights, result).max() <= (2 * abs(weights).max()) ** 2


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_files_keep_all(name: str, kind: str, tmp_path: Path) -> None:
    weights = np.random.default_rng(6).standard_normal((5, 300), np.float32)
    result = quantize_batch_arrow(table_of(weights), encoding=name, metrics=True)
    path = tmp_path / f"result.{kind}"
    write_batches(result.to_reader(), path, kind, overwrite=False)
    again = open_results(path).read_all()
    assert raw(again) == raw(result)
    assert dequantize_batch_arrow(again).equals(dequantize_batch_arrow(result))


def test_rows_of_different_encodings_stand_in_one_table() -> None:
    weights = np.random.default_rng(7).standard_normal((5, 300), np.float32)
    names = ["int", *FIXED]
    results = [
        quantize_batch_arrow(
            table_of(weights).set_column(0, "layer_name", [[name]]), encoding=name, metrics=True
        )
        for name in names
    ]
    mixed = pa.concat_tables(results, promote_options="default").combine_chunks()
    decoded = dequantize_batch_arrow(mixed)
    assert decoded["layer_name"].to_pylist() == names
    for row, result in enumerate(results):
        assert decoded["weights"][row] == dequantize_batch_arrow(result)["weights"][0]
    kept = mixed.filter(pa.array([name.startswith("q") for name in names]))
    assert dequantize_batch_arrow(kept).num_rows == 5
    original = pa.concat_tables(
        table_of(weights).set_column(0, "layer_name", [[name]]) for name in names
    )
    errors = compare(original, mixed)
    assert errors["relative_error"].to_pylist() == pytest.approx(
        mixed["relative_error"].to_pylist()
    )


@pytest.mark.parametrize("size", [1e-7, 3e-7, 1e-6, 3e-6])
def test_of_tiny_weights_the_search_keeps_what_the_smallest_scales_can(size: float) -> None:
    """Float16 rounds the plain scale to 0, or to one of a few: each of those is tried here."""
    weights = np.float32(size) * np.random.default_rng(11).standard_normal((6, 32), np.float32)
    result = quantize_batch_arrow(table_of(weights), encoding="iq4_nl", method="mse")
    levels = np.array(oracle.IQ4, np.float64)
    scales = np.delete(np.arange(-20, 21), 20) * 2.0**-24
    # Of each row, scale, weight and level.
    distances = weights[:, None, :, None] - (scales[:, None] * levels)[:, None, :]
    least = np.square(distances.astype(np.float64)).min(axis=-1).sum(axis=-1).min(axis=-1)
    all_zero = np.square(weights.astype(np.float64)).sum(axis=-1)
    found = squared_error(weights, result).reshape(6, 32).sum(axis=-1)
    assert (found <= np.minimum(least, all_zero) * 1.02).all()
