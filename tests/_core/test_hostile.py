"""Corrupt and malicious memory: a clear error every time, never a crash.

Every case also runs in a child process, and the test in this process waits for the child, so a
crash is a failed test with a name and not the end of pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from child import HANG
from conftest import INPUT_SCHEMA, OnlyStream, assert_same, attempt, plain
from hostile import FAR, SOURCES, STREAMS, VALUES, binaries, list_views, lists, view, views
from hypothesis import given, settings
from hypothesis import strategies as st

from pyarrowquant import QuantizationError, quantize_batch_arrow, validate_arrow_input

pytestmark = pytest.mark.usefixtures("nothing_leaked")


@pytest.fixture(scope="module")
def survivors() -> set[str]:
    """The hostile sources that a child process has lived through."""
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import hostile; hostile.run_in_this_process()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    lines = [line.split("\t") for line in child.stdout.splitlines()]
    lived = {what for what, mode, _ in lines if mode == "True"}
    assert child.returncode == 0, (sorted(set(SOURCES) - lived)[:3], child.stderr[-3000:])
    return lived


CLEAR = r"(?i)offset|size|length|index|indices|view|buffer|negative|utf"


@pytest.mark.parametrize("what", SOURCES)
def test_hostile_source_is_refused(what: str, survivors: set[str]) -> None:
    assert what in survivors
    build, name = SOURCES[what]
    with pytest.raises(ValueError, match=CLEAR) as caught:
        quantize_batch_arrow(build())
    if isinstance(caught.value, QuantizationError):
        found = [(error.layer_name, error.kind) for error in caught.value.errors]
        assert (name, "corrupt") in found
        assert name is None or f"'{name}'" in str(caught.value)
    else:
        # pyarrow's own check comes first and knows columns, not layers
        assert isinstance(caught.value.__cause__ or caught.value, pa.ArrowInvalid)
        assert "corrupt" in str(caught.value)


@pytest.mark.usefixtures("survivors")
def test_validating_hostile_sources_reads_nothing() -> None:
    for build, _ in STREAMS.values():
        validate_arrow_input(build())


@pytest.mark.usefixtures("survivors")
def test_good_layers_beside_a_corrupt_one_survive() -> None:
    table = list_views([(0, 4), (FAR, 4), (4, 4)], pa.list_view(pa.float32()))
    with pytest.warns(UserWarning, match="n1"):
        result = quantize_batch_arrow(OnlyStream(table), continue_on_error=True)
    expected = quantize_batch_arrow(plain(["n0", "n2"], [VALUES[:4], VALUES[4:]]))
    assert_same(result, expected)


def test_bytes_outside_of_the_slice_are_not_judged() -> None:
    table = lists([0, 4, FAR, -1, 8], pa.list_(pa.float32()))[:1]
    expected = quantize_batch_arrow(plain(["n0"], [VALUES[:4]]))
    assert_same(quantize_batch_arrow(OnlyStream(table)), expected)


def test_name_that_is_not_utf8_is_an_error() -> None:
    table = binaries([0, 4], pa.string(), "layer_name", b"a\xff\xfe!")
    with pytest.raises(ValueError, match=r"(?i)utf-?8|row 0"):
        quantize_batch_arrow(table)


FUZZ = settings(max_examples=250, deadline=None, derandomize=True, database=None)
NUMBERS = st.integers(-3, 12) | st.sampled_from([2**31 - 1, -(2**31), FAR])


def agrees_with_pyarrow(table: pa.Table) -> None:
    """Check that a table is quantized if it is sound and refused if it is not."""
    try:
        table.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowIndexError):
        with pytest.raises(ValueError, match=CLEAR):
            quantize_batch_arrow(OnlyStream(table))
        return
    expected = quantize_batch_arrow(plain(*table.select([0, 1]).to_pydict().values()))
    for source in (table, OnlyStream(table)):
        result = quantize_batch_arrow(source)
        assert result["quantized_data"].equals(expected["quantized_data"])


@FUZZ
@given(offsets=st.lists(NUMBERS, min_size=2, max_size=5), large=st.booleans())
def test_fuzz_list_offsets(offsets: list[int], large: bool) -> None:
    dtype = pa.large_list(pa.float32()) if large else pa.list_(pa.float32())
    agrees_with_pyarrow(lists(offsets, dtype))


@FUZZ
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4), st.booleans())
def test_fuzz_list_views(spans: list[tuple[int, int]], large: bool) -> None:
    dtype = pa.large_list_view(pa.float32()) if large else pa.list_view(pa.float32())
    agrees_with_pyarrow(list_views(spans, dtype))


@FUZZ
@given(offsets=st.lists(NUMBERS, min_size=2, max_size=4), data=st.binary(min_size=32, max_size=32))
def test_fuzz_raw_bytes(offsets: list[int], data: bytes) -> None:
    table = binaries(offsets, pa.binary(), data=data)
    # not as a stream: only pyarrow knows where the buffer ends
    result = attempt(quantize_batch_arrow, table)
    if isinstance(result, pa.Table):
        table.validate(full=True)
        assert len(result) == len(table)


@FUZZ
@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=4))
def test_fuzz_views(entries: list[tuple[int, int, int]]) -> None:
    table = views([view(*entry) for entry in entries], pa.binary_view())
    result = attempt(quantize_batch_arrow, OnlyStream(table))
    if isinstance(result, pa.Table):
        assert len(result) == len(table)


@FUZZ
@given(weights=st.lists(st.floats(width=32) | st.none(), max_size=30), shape=st.lists(NUMBERS))
def test_fuzz_values_and_shapes(weights: list[float | None], shape: list[int]) -> None:
    table = pa.table([["x"], [weights], [shape]], schema=INPUT_SCHEMA)
    count = int(np.prod(np.array(shape, object)))
    sound = count == len(weights) and all(dim >= 0 for dim in shape)
    sound = sound and all(value is not None and np.isfinite(value) for value in weights)
    result = attempt(quantize_batch_arrow, table)
    if sound:
        assert result["shape"].to_pylist() == [shape]
    else:
        assert [layer.row for layer in result.errors] == [0]
