"""Tables, streams and readers over corrupt and malicious memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from conftest import OnlyStream

from pyarrowquant import quantize_batch_arrow

FAR = 2**20
VALUES = np.arange(1, 9, dtype=np.float32)
INT8, INT32, INT64 = np.int8, np.int32, np.int64


def overwritten(build: Callable[..., pa.Table], *contents: np.ndarray) -> pa.Table:
    """Build a table over zeroed memory, which pyarrow accepts, then fill in the contents."""
    memories = [np.zeros_like(content) for content in contents]
    table = build(*(pa.py_buffer(memory) for memory in memories))
    for memory, content in zip(memories, contents, strict=True):
        memory[:] = content
    return table


def named(column: str, array: pa.Array, **others: Any) -> pa.Table:
    """Put the array beside harmless columns; the layers are n0, n1, ..."""
    count = len(array)
    columns = {
        "layer_name": pa.array([f"n{row}" for row in range(count)]),
        "weights": pa.array([VALUES] * count),
        **{name: pa.array([value] * count) for name, value in others.items()},
    }
    return pa.table({**columns, column: array})


def array_of(dtype: pa.DataType, count: int, *buffers: pa.Buffer, **options: Any) -> pa.Array:
    """Build an array without nulls from its buffers."""
    return pa.Array.from_buffers(dtype, count, [None, *buffers], **options)


def lists(offsets: Sequence[int], dtype: pa.DataType, column: str = "weights") -> pa.Table:
    """Lists over 8 values with these offsets."""
    width = INT64 if pa.types.is_large_list(dtype) else INT32
    child = pa.array(VALUES).cast(dtype.value_type)

    def build(buffer: pa.Buffer) -> pa.Table:
        return named(column, array_of(dtype, len(offsets) - 1, buffer, children=[child]))

    return overwritten(build, np.array(offsets, width))


def list_views(spans: Sequence[tuple[int, int]], dtype: pa.DataType) -> pa.Table:
    """List views over 8 values with these offsets and sizes."""
    width = INT64 if pa.types.is_large_list_view(dtype) else INT32
    child = pa.array(VALUES).cast(dtype.value_type)

    def build(*buffers: pa.Buffer) -> pa.Table:
        return named("weights", array_of(dtype, len(spans), *buffers, children=[child]))

    starts, sizes = zip(*spans, strict=True)
    return overwritten(build, np.array(starts, width), np.array(sizes, width))


def binaries(
    offsets: Sequence[int], dtype: pa.DataType, column: str = "weights", data: bytes = b"?" * 32
) -> pa.Table:
    """Binary values or strings over 32 bytes with these offsets."""
    large = pa.types.is_large_binary(dtype) or pa.types.is_large_string(dtype)

    def build(*buffers: pa.Buffer) -> pa.Table:
        array = array_of(dtype, len(offsets) - 1, *buffers)
        return named(column, array, **({"dtype": "F32"} if column == "weights" else {}))

    width = INT64 if large else INT32
    return overwritten(build, np.array(offsets, width), np.frombuffer(data, np.uint8))


def view(length: int, index: int, offset: int) -> bytes:
    """Return the 16 bytes of a view that points into a buffer."""
    return struct.pack("<i4sii", length, b"????", index, offset)


def views(entries: Sequence[bytes], dtype: pa.DataType, column: str = "weights") -> pa.Table:
    """Binary or string views over one buffer of 32 bytes."""

    def build(*buffers: pa.Buffer) -> pa.Table:
        array = array_of(dtype, len(entries), *buffers)
        return named(column, array, **({"dtype": "F32"} if column == "weights" else {}))

    content = np.frombuffer(b"".join(entries), np.uint8)
    return overwritten(build, content, np.frombuffer(b"?" * 32, np.uint8))


def dictionary(indices: Sequence[int], value: pa.DataType, index: type[np.generic]) -> pa.Table:
    """Names through a dictionary of two entries."""

    def build(buffer: pa.Buffer) -> pa.Table:
        positions = array_of(pa.from_numpy_dtype(index), len(indices), buffer)
        entries = pa.array(["x", "a name of more than 12 bytes"], value)
        return named("layer_name", pa.DictionaryArray.from_arrays(positions, entries))

    return overwritten(build, np.array(indices, index))


def with_head(table: pa.Table) -> pa.Table:
    """Show only the first row, as a slice; pyarrow looks at the last offset only."""
    return table[:1]


# What each case is made of and the layer that has to be named (None: no name to give)
Case = tuple[Callable[[], pa.Table], str | None]

LIST_OFFSETS = {
    "decrease": ([0, 6, 2, 8], "n1"),
    "past the values in the middle": ([0, FAR, 8], "n0"),
    "past the values at the end": ([0, 4, FAR], "n1"),
    "one past the values": ([0, 4, 9], "n1"),
    "negative first": ([-4, 4, 8], "n0"),
    "negative in the middle": ([0, -4, 8], "n0"),
    "smallest": ([0, -(2**31), 8], "n0"),
    "biggest": ([0, 2**31 - 1, 8], "n0"),
}
VIEW_SPANS = {
    "offset past the values": ([(0, 4), (FAR, 4)], "n1"),
    "size past the values": ([(4, 5), (0, 4)], "n0"),
    "negative offset": ([(-1, 2)], "n0"),
    "negative size": ([(2, -1)], "n0"),
    "sum overflows": ([(2**31 - 1, 2**31 - 1)], "n0"),
}
BINARY_OFFSETS = {
    "decrease": ([0, 16, 8, 32], "n1"),
    "past the buffer in the middle": ([0, FAR, 32], "n0"),
    "negative first": ([-4, 4, 32], "n0"),
    "negative in the middle": ([0, -4, 32], "n0"),
}
VIEWS = {
    "buffer that does not exist": ([view(16, 3, 0)], "n0"),
    "negative buffer": ([view(16, -1, 0)], "n0"),
    "past the buffer": ([view(16, 0, FAR)], "n0"),
    "one past the buffer": ([view(16, 0, 17)], "n0"),
    "negative offset": ([view(16, 0, -4)], "n0"),
    "negative length": ([view(-16, 0, 0)], "n0"),
    "length past the buffer": ([view(2**31 - 4, 0, 0)], "n0"),
}


def layout_cases() -> dict[str, Case]:
    """Cases whose offsets, sizes, views or indices point to where nothing is."""
    cases: dict[str, Case] = {}
    for make in (pa.list_, pa.large_list):
        for what, (offsets, name) in LIST_OFFSETS.items():
            cases[f"{make.__name__} {what}"] = (partial(lists, offsets, make(pa.float32())), name)
    for make in (pa.list_view, pa.large_list_view):
        for what, (spans, name) in VIEW_SPANS.items():
            build = partial(list_views, spans, make(pa.float32()))
            cases[f"{make.__name__} {what}"] = (build, name)
    for dtype in (pa.binary(), pa.large_binary()):
        for what, (offsets, name) in BINARY_OFFSETS.items():
            cases[f"{dtype} {what}"] = (partial(binaries, offsets, dtype), name)
    for what, (entries, name) in VIEWS.items():
        cases[f"binary_view {what}"] = (partial(views, entries, pa.binary_view()), name)
        build = partial(views, entries, pa.string_view(), "layer_name")
        cases[f"string_view name {what}"] = (build, None)
    for dtype in (pa.string(), pa.large_string()):
        for what, (offsets, _) in BINARY_OFFSETS.items():
            build = partial(binaries, offsets, dtype, "layer_name")
            cases[f"{dtype} name {what}"] = (build, None)
    for what, (offsets, name) in LIST_OFFSETS.items():
        cases[f"shape {what}"] = (partial(lists, offsets, pa.list_(pa.int64()), "shape"), name)
    return cases


def dictionary_cases() -> dict[str, Case]:
    """Cases whose dictionary indices point past the dictionary."""
    strings = [pa.string(), pa.large_string(), pa.string_view()]
    bad: list[tuple[type[np.generic], int]] = [
        (INT8, 2),
        (INT8, -1),
        (INT32, FAR),
        (INT32, -(2**31)),
        (INT64, 2**62),
        (np.uint8, 255),
        (np.uint64, 2**63 + 1),
    ]
    return {
        f"dictionary of {value} {index.__name__} {wrong}": (
            partial(dictionary, [0, wrong], value, index),
            None,
        )
        for value in strings
        for index, wrong in bad
    }


HOSTILE = {**layout_cases(), **dictionary_cases()}

# The C data interface does not transmit the size of this buffer, so that only pyarrow knows it
ONLY_PYARROW_KNOWS = {
    f"{dtype} past the buffer": (
        lambda dtype=dtype: with_head(binaries([0, FAR, 32], dtype)),
        "n0",
    )
    for dtype in (pa.binary(), pa.large_binary())
} | {
    f"{dtype} name past the buffer": (
        lambda dtype=dtype: with_head(binaries([0, FAR, 32], dtype, "layer_name")),
        None,
    )
    for dtype in (pa.string(), pa.large_string())
}

TABLES = {f"table: {what}": case for what, case in (HOSTILE | ONLY_PYARROW_KNOWS).items()}
STREAMS = {
    f"stream: {what}": (lambda build=build: OnlyStream(build()), name)
    for what, (build, name) in HOSTILE.items()
}
READERS = {
    f"reader: {what}": (lambda build=build: build().to_reader(), name)
    for what, (build, name) in ONLY_PYARROW_KNOWS.items()
}
SOURCES: dict[str, tuple[Callable[[], Any], str | None]] = TABLES | STREAMS | READERS


def run_in_this_process() -> None:
    """Quantize every hostile source and print what became of it, for the child process."""
    for what, (build, _) in SOURCES.items():
        for continue_on_error in (False, True):
            outcome = "accepted"
            try:
                quantize_batch_arrow(build(), continue_on_error=continue_on_error)
            except ValueError:
                outcome = "refused"
            print(what, continue_on_error, outcome, sep="\t", flush=True)
