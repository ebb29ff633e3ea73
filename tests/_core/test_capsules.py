"""Sources that show one Arrow dunder and nothing else: read once, let go, errors kept."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import nanoarrow as na
import numpy as np
import pyarrow as pa
import pytest
from conftest import (
    INPUT_SCHEMA,
    Batches,
    OnlyArray,
    OnlyStream,
    assert_same,
    attempt,
    numbered_batches,
    plain,
    plain_layers,
)

from pyarrowquant import (
    QuantizationError,
    SkippedLayerWarning,
    quantize_batch_arrow,
    validate_arrow_input,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")

Call = Callable[..., Any]
CALLS = [quantize_batch_arrow, validate_arrow_input]


@pytest.fixture
def table(layers: dict[str, np.ndarray]) -> pa.Table:
    """The plain input."""
    return plain_layers(layers)


# One dunder


def test_stream_is_asked_for_once(table: pa.Table) -> None:
    source = OnlyStream(table)
    assert_same(quantize_batch_arrow(source), quantize_batch_arrow(table))
    assert source.calls == 1


def test_array_is_asked_for_once_and_moved(table: pa.Table) -> None:
    source = OnlyArray(table.combine_chunks().to_batches()[0])
    assert_same(quantize_batch_arrow(source), quantize_batch_arrow(table))
    assert source.calls == 1
    assert source.capsules is not None
    fresh_schema = INPUT_SCHEMA.__arrow_c_schema__()
    with pytest.raises(pa.ArrowInvalid, match="released"):
        pa.RecordBatch._import_from_c_capsule(fresh_schema, source.capsules[1])


@pytest.mark.parametrize("call", CALLS)
def test_both_dunders_are_asked_once_in_all(call: Call, table: pa.Table) -> None:
    class Both(OnlyStream, OnlyArray):
        """Counts the calls of both dunders together."""

    source = Both(table.combine_chunks().to_batches()[0])
    call(source)
    assert source.calls == 1


def test_nanoarrow_behind_one_dunder(table: pa.Table) -> None:
    expected = quantize_batch_arrow(table)
    batch = table.combine_chunks().to_batches()[0]
    assert_same(quantize_batch_arrow(OnlyStream(na.ArrayStream(table))), expected)
    assert_same(quantize_batch_arrow(OnlyArray(na.c_array(batch))), expected)


def test_sliced_struct_array_is_read_at_its_offset_or_refused(table: pa.Table) -> None:
    # pyarrow itself refuses to take such an array for a record batch
    source = OnlyArray(table.to_struct_array().combine_chunks()[2:])
    result = attempt(quantize_batch_arrow, source)
    if isinstance(result, ValueError):
        assert "offset" in str(result)
    else:
        assert_same(result, quantize_batch_arrow(table[2:]))


def test_struct_array_with_a_null_row_is_an_error(table: pa.Table) -> None:
    struct = table.to_struct_array().combine_chunks()
    mask = pa.array([row == 1 for row in range(len(struct))])
    source = pa.StructArray.from_arrays(struct.flatten(), names=table.column_names, mask=mask)
    with pytest.raises(ValueError, match="null"):
        quantize_batch_arrow(OnlyArray(source))


@pytest.mark.parametrize("wrap", [OnlyStream, OnlyArray])
@pytest.mark.parametrize("call", CALLS)
def test_one_dunder_over_a_column_is_no_table(call: Call, wrap: Call) -> None:
    column = pa.array([1.0]) if wrap is OnlyArray else pa.chunked_array([[1.0]])
    source = wrap(column)
    with pytest.raises((ValueError, TypeError), match=r"(?i)table"):
        call(source)
    assert source.calls <= 1


@pytest.mark.parametrize("dunder", ["__arrow_c_stream__", "__arrow_c_array__"])
def test_what_a_dunder_raises_is_not_hidden(dunder: str) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise OSError("no such bucket")

    source = type("Refuses", (), {dunder: refuse})()
    with pytest.raises(Exception, match="no such bucket"):
        quantize_batch_arrow(source)


@pytest.mark.parametrize("dunder", ["__arrow_c_stream__", "__arrow_c_array__"])
@pytest.mark.parametrize("value", [None, 3, (1, 2), "capsule"], ids=repr)
def test_dunder_that_returns_no_capsule(dunder: str, value: object) -> None:
    source = type("Wrong", (), {dunder: lambda *_, **__: value})()
    with pytest.raises((ValueError, TypeError)):
        quantize_batch_arrow(source)


def test_capsules_that_were_consumed_before_are_an_error(table: pa.Table) -> None:
    stream = table.__arrow_c_stream__()
    pa.RecordBatchReader._import_from_c_capsule(stream)
    batch = table.combine_chunks().to_batches()[0]
    schema, array = batch.__arrow_c_array__()
    pa.RecordBatch._import_from_c_capsule(schema, array)
    for dunder, capsule in (
        ("__arrow_c_stream__", stream),
        ("__arrow_c_array__", (INPUT_SCHEMA.__arrow_c_schema__(), array)),
    ):
        used = type("Used", (), {dunder: lambda *_, capsule=capsule, **__: capsule})()
        with pytest.raises((ValueError, TypeError), match=r"released|consumed"):
            quantize_batch_arrow(used)


# Letting go


@pytest.mark.parametrize("wrap", [OnlyStream, lambda reader: reader])
def test_stream_is_released_after_success(wrap: Call) -> None:
    source = Batches(numbered_batches(5))
    result = quantize_batch_arrow(wrap(source.reader()))
    assert (source.pulled, len(result)) == (5, 5)
    assert source.released


@pytest.mark.parametrize("continue_on_error", [False, True])
def test_stream_is_released_after_a_bad_layer(continue_on_error: bool) -> None:
    bad = plain(["bad"], [[1.0, float("nan")]]).to_batches()
    source = Batches(bad + numbered_batches(2))
    with warnings.catch_warnings(), suppress(QuantizationError):
        warnings.simplefilter("ignore", SkippedLayerWarning)
        quantize_batch_arrow(OnlyStream(source.reader()), continue_on_error=continue_on_error)
    assert source.released


@pytest.mark.parametrize("call", CALLS)
def test_stream_is_released_after_a_schema_error(call: Call) -> None:
    batch = pa.record_batch({"layer_name": ["a"], "weights": [1]})
    source = Batches([batch], batch.schema)
    with suppress(ValueError):
        call(OnlyStream(source.reader()))
    assert source.released
    assert source.pulled == 0


def test_array_is_released_after_a_bad_layer() -> None:
    source = OnlyArray(plain(["bad"], [[float("inf")]]).to_batches()[0])
    with pytest.raises(QuantizationError, match="bad"):
        quantize_batch_arrow(source)
    assert source.calls == 1


# Failing sources


@pytest.mark.parametrize("continue_on_error", [False, True])
@pytest.mark.parametrize("good", [0, 1, 3])
def test_failing_stream_raises_in_both_modes(good: int, continue_on_error: bool) -> None:
    source = Batches(numbered_batches(good), fails_with=RuntimeError("the disk is on fire"))
    with pytest.raises(Exception, match="the disk is on fire"):
        quantize_batch_arrow(OnlyStream(source.reader()), continue_on_error=continue_on_error)
    assert source.pulled == good


def test_failing_stream_is_released() -> None:
    source = Batches(numbered_batches(2), fails_with=RuntimeError("the disk is on fire"))
    with suppress(Exception):
        quantize_batch_arrow(OnlyStream(source.reader()))
    gc.collect()  # the exception's frames
    assert source.released


@pytest.mark.parametrize("continue_on_error", [False, True])
def test_source_failure_wins_over_bad_layers(continue_on_error: bool) -> None:
    bad = plain(["bad"], [[float("nan")]]).to_batches()
    source = Batches(bad, fails_with=RuntimeError("the disk is on fire"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedLayerWarning)
        with pytest.raises(Exception, match="the disk is on fire"):
            quantize_batch_arrow(OnlyStream(source.reader()), continue_on_error=continue_on_error)


def test_batch_that_does_not_have_the_stream_schema_is_an_error() -> None:
    # pyarrow checks what the generator yields and fails the stream
    other = pa.record_batch({"x": pa.array([1])})
    source = Batches([*numbered_batches(1), other])
    with pytest.raises(Exception, match="expected 3"):
        quantize_batch_arrow(OnlyStream(source.reader()))


# Nothing is read before the arguments and the schema are known to be good

WRONG_SCHEMAS = {
    "weights of int32": {"layer_name": pa.string(), "weights": pa.int32()},
    "no weights": {"layer_name": pa.string()},
    "no name": {"weights": pa.list_(pa.float32())},
    "raw without dtype": {"layer_name": pa.string(), "weights": pa.binary()},
    "shape of string": {
        "layer_name": pa.string(),
        "weights": pa.list_(pa.float32()),
        "shape": pa.string(),
    },
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", WRONG_SCHEMAS)
def test_schema_error_comes_before_any_read(case: str, call: Call) -> None:
    schema = pa.schema(WRONG_SCHEMAS[case])
    source = Batches([pa.RecordBatch.from_pylist([], schema)], schema)
    with pytest.raises(ValueError, match=r"[Cc]olumn"):
        call(OnlyStream(source.reader()))
    assert source.pulled == 0


@pytest.mark.parametrize(
    "options", [{"bit_width": 7}, {"group_size": 12}, {"method": "?"}, {"threads": 0}], ids=str
)
def test_argument_error_comes_before_any_read(options: dict[str, Any]) -> None:
    source = Batches(numbered_batches(1))
    with pytest.raises(ValueError, match=next(iter(options))):
        quantize_batch_arrow(source.reader(), **options)
    assert source.pulled == 0


def test_stream_of_no_batches_is_a_typed_empty_table(table: pa.Table) -> None:
    expected = quantize_batch_arrow(table)
    result = quantize_batch_arrow(Batches([]).reader())
    assert len(result) == 0
    assert result.schema.equals(expected.schema, check_metadata=True)


def test_empty_batches_between_others_are_skipped() -> None:
    nothing = plain([], []).to_batches(max_chunksize=1)
    empty = pa.RecordBatch.from_pylist([], INPUT_SCHEMA)
    full = numbered_batches(3)
    source = Batches([*nothing, empty, full[0], empty, *full[1:], empty])
    expected = quantize_batch_arrow(pa.Table.from_batches(full))
    assert_same(quantize_batch_arrow(source.reader()), expected)
