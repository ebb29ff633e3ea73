"""What each failing layer raises: class, text and fields."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pyarrow as pa
import pytest
from conftest import OnlyStream, plain, with_column

from pyarrowquant import LayerError, QuantizationError, SkippedLayerWarning, quantize_batch_arrow
from tables.failing import BAD_FIELDS, bad_table, failure, fields, with_value

pytestmark = pytest.mark.usefixtures("nothing_leaked")

NAN = float("nan")
INF = float("inf")


@pytest.mark.parametrize(
    ("value", "shown"), [(NAN, r"NaN"), (INF, r"\+?Inf"), (-INF, r"-Inf")], ids=repr
)
def test_non_finite_text(value: float, shown: str) -> None:
    error = failure(plain(["x"], [with_value(value, 50)]))
    head = re.escape("Layer 'x' contains NaN or Inf at index 50 (")
    tail = re.escape("). Replace such values first, for example with np.nan_to_num()")
    assert re.fullmatch(head + shown + tail, error.errors[0].message)
    assert error.errors[0].message in str(error)
    assert fields(error.errors[0]) == ("x", 0, 50, "non_finite")


def test_shape_mismatch_text() -> None:
    table = with_column(plain(["x"], [np.ones(100)]), "shape", pa.array([[10, 20]]))
    error = failure(table)
    text = "Layer 'x': Shape mismatch: shape [10, 20] has 200 elements, weights has 100"
    assert error.errors[0].message == text
    assert text in str(error)
    assert fields(error.errors[0]) == ("x", 0, None, "shape_mismatch")


@pytest.mark.parametrize("dtype", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("index", [0, 7, 127, 128, 299])
def test_index_of_the_first_bad_value(dtype: pa.DataType, index: int) -> None:
    weights = with_value(NAN, index, 300)
    weights[-1] = INF if index < 299 else NAN
    column = pa.array([weights.astype(dtype.to_pandas_dtype())], pa.list_(dtype))
    error = failure(pa.table({"layer_name": ["x"], "weights": column}))
    assert fields(error.errors[0]) == ("x", 0, index, "non_finite")


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_index_of_a_bad_raw_value(kind: str) -> None:
    nan = {"F16": 0x7E00, "BF16": 0x7FC0}[kind]
    data = np.array([0] * 40 + [nan, 0], "<u2").tobytes()
    error = failure(pa.table({"layer_name": ["x"], "weights": [data], "dtype": [kind]}))
    assert fields(error.errors[0]) == ("x", 0, 40, "non_finite")


@pytest.mark.parametrize("shape", [(1, 2**19), (2**19, 1), (512, 1024)], ids=str)
def test_first_bad_value_of_a_layer_that_many_workers_share(shape: tuple[int, int]) -> None:
    weights = np.ones(2**19, np.float32)
    weights[[300_000, 2**19 - 1]] = NAN
    errors = failure(plain(["big"], [weights.reshape(shape)]), threads=2).errors
    assert [fields(error) for error in errors] == [("big", 0, 300_000, "non_finite")]


def test_every_failing_layer_is_in_one_exception() -> None:
    error = failure(bad_table())
    assert [fields(layer) for layer in error.errors] == BAD_FIELDS
    assert all(name in str(error) for name in ("nan", "inf", "hole", "null", "shape"))


def test_rows_count_over_all_chunks() -> None:
    table = pa.concat_tables([bad_table(), bad_table()])
    errors = failure(OnlyStream(table)).errors
    rows = [row for _, row, _, _ in BAD_FIELDS]
    assert [error.row for error in errors] == rows + [row + 8 for row in rows]


def test_null_texts_name_the_row() -> None:
    by_row = {error.row: error for error in failure(bad_table()).errors}
    assert "row 3" in by_row[3].message.lower()
    assert "'null'" in by_row[5].message
    assert "row 5" in by_row[5].message.lower()
    assert "'hole'" in by_row[4].message
    assert all("null" in by_row[row].message for row in (3, 4, 5))


def test_thousand_failing_layers_are_all_listed() -> None:
    names = [f"n{i}" for i in range(1000)]
    error = failure(plain(names, [[NAN]] * 1000))
    assert [layer.layer_name for layer in error.errors] == names
    assert "n0" in str(error)


def test_scale_that_its_dtype_cannot_hold() -> None:
    weights = [1e30, -1e30]
    error = failure(plain(["x"], [weights]), scale_dtype="float16")
    assert (error.errors[0].layer_name, error.errors[0].kind) == ("x", "scale_range")
    assert "float16" in error.errors[0].message
    assert len(quantize_batch_arrow(plain(["x"], [weights]))) == 1


@pytest.mark.parametrize("name", ["", "it's", 'a "b"', "été", "tab\tnewline\n", "a\0b", "x" * 300])
def test_odd_names_in_errors(name: str) -> None:
    error = failure(plain([name], [[NAN]]))
    assert error.errors[0].layer_name == name


def test_errors_pickle() -> None:
    error = failure(bad_table())
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is QuantizationError
    assert str(copy) == str(error)
    assert [fields(layer) for layer in copy.errors] == BAD_FIELDS
    assert [layer.message for layer in copy.errors] == [layer.message for layer in error.errors]


def test_layer_error_pickles() -> None:
    layer = LayerError("a", 3, None, "null", "Layer 'a' is null")
    copy = pickle.loads(pickle.dumps(layer))
    assert type(copy) is LayerError
    assert fields(copy) == ("a", 3, None, "null")
    assert copy.message == "Layer 'a' is null"


def test_quantization_error_is_a_value_error() -> None:
    assert issubclass(QuantizationError, ValueError)
    assert issubclass(SkippedLayerWarning, Warning)
