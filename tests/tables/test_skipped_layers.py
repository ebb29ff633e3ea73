"""What is left of the other layers with continue_on_error, and the warnings of those left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import assert_same, plain, plain_layers

from pyarrowquant import (
    SkippedLayerWarning,
    numpy_to_arrow_table,
    quantize_batch,
    quantize_batch_arrow,
)
from tables.failing import bad_table, failure

pytestmark = pytest.mark.usefixtures("nothing_leaked")

NAN = float("nan")
INF = float("inf")


# continue_on_error


def skipping(source: Any, **options: Any) -> tuple[pa.Table, list[str]]:
    """Return the result and the texts of the warnings about skipped layers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = quantize_batch_arrow(source, continue_on_error=True, **options)
    assert all(warning.category is SkippedLayerWarning for warning in caught)
    return result, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("threads", [1, 2])
def test_survivors_equal_a_run_without_the_bad_layers(threads: int) -> None:
    table = bad_table()
    result, texts = skipping(table, threads=threads)
    assert_same(result, quantize_batch_arrow(table.take([0, 7])))
    messages = [error.message for error in failure(table).errors]
    assert all(message in text for message, text in zip(messages, texts, strict=True))


def test_each_warning_names_its_layer() -> None:
    _, texts = skipping(plain(["a", "b", "c"], [[NAN], [1.0], [INF]]))
    assert len(texts) == 2
    assert "'a'" in texts[0]
    assert "'c'" in texts[1]


def test_warning_points_at_the_caller() -> None:
    with pytest.warns(SkippedLayerWarning) as caught:
        quantize_batch_arrow(plain(["a"], [[NAN]]), continue_on_error=True)
    assert caught[0].filename == __file__


def test_same_name_fails_twice_and_warns_twice() -> None:
    _, texts = skipping(plain(["a", "a"], [[NAN], [NAN]]))
    assert len(texts) == 2


def test_no_layer_survives() -> None:
    good = quantize_batch_arrow(plain(["a"], [[1.0]]))
    result, texts = skipping(plain(["a", "b"], [[NAN], [INF]]))
    assert len(texts) == 2
    assert len(result) == 0
    assert result.schema.equals(good.schema, check_metadata=True)


def test_nothing_wrong_warns_nothing(layers: dict[str, np.ndarray]) -> None:
    result, texts = skipping(plain_layers(layers))
    assert texts == []
    assert_same(result, quantize_batch_arrow(plain_layers(layers)))


def test_warnings_as_errors_raise() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SkippedLayerWarning)
        with pytest.raises(SkippedLayerWarning, match="'a'"):
            quantize_batch_arrow(plain(["a"], [[NAN]]), continue_on_error=True)


# Order


@pytest.mark.parametrize(
    "call",
    [
        lambda layers: quantize_batch(layers, continue_on_error=True),
        lambda layers: quantize_batch_arrow(numpy_to_arrow_table(layers), continue_on_error=True),
    ],
)
def test_warnings_name_the_callers_line(call: Callable[[Any], object]) -> None:
    with pytest.warns(SkippedLayerWarning) as caught:
        call({"bad": np.array([np.nan], np.float32)})
    assert [warning.filename for warning in caught] == [__file__]
