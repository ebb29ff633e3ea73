"""Arguments and schemas that cannot be compared."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest

from comparison.compared import FINE, one
from pyarrowquant import QuantizationError, compare, quantize_batch_arrow

pytestmark = pytest.mark.usefixtures("nothing_leaked")


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
