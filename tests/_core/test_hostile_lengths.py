"""Numbers in the C structures that do not fit together: refused, and all is released.

Numbers of children are left as they are: the producer itself releases them by these.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from c_array import CArray
from conftest import assert_same, plain

from pyarrowquant import dequantize_batch_arrow, quantize_batch_arrow, quantize_stream

pytestmark = pytest.mark.usefixtures("nothing_leaked")

BIG = 2**62

GIVE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
TEXT = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)
RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class CStream(ctypes.Structure):
    """The ArrowArrayStream of the C stream interface."""

    _fields_ = [
        ("get_schema", GIVE),
        ("get_next", GIVE),
        ("get_last_error", TEXT),
        ("release", RELEASE),
        ("private_data", ctypes.c_void_p),
    ]


# Who holds a stream may release it at any time: its functions stay.
STREAMS: list[CStream] = []


class Changed:
    """Exports one batch, whose C array is changed on its way."""

    def __init__(self, table: pa.Table, change: Callable[[CArray], None]) -> None:
        schema, left = table.schema, table.combine_chunks().to_batches()

        def get_schema(_: int, out: int) -> int:
            schema._export_to_c(out)
            return 0

        def get_next(_: int, out: int) -> int:
            if left:
                left.pop()._export_to_c(out)
                change(CArray.from_address(out))
            else:
                ctypes.memset(out, 0, ctypes.sizeof(CArray))
            return 0

        def release(stream: int) -> None:
            left.clear()
            # found by its place: the consumer has moved the structure
            ctypes.c_void_p.from_address(stream + CStream.release.offset).value = None

        self.stream = CStream(
            GIVE(get_schema),
            GIVE(get_next),
            TEXT(lambda _: None),
            RELEASE(release),
            None,
        )
        STREAMS.append(self.stream)

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = (
            ctypes.py_object,
            [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
        )
        return new(ctypes.addressof(self.stream), b"arrow_array_stream", None)


LAYERS = {"a": np.arange(8, dtype=np.float32), "b": np.arange(16, dtype=np.float32)}


def layers() -> pa.Table:
    return plain(list(LAYERS), list(LAYERS.values()))


def column(batch: CArray, index: int) -> CArray:
    return batch.children[index].contents


def setting(path: tuple[int, ...], **numbers: int) -> Callable[[CArray], None]:
    """Set numbers of the batch's array (), of a column (i,) or of a column's values (i, 0)."""

    def change(array: CArray) -> None:
        for child in path:
            array = column(array, child)
        for name, number in numbers.items():
            setattr(array, name, number)

    return change


WRONG = {
    "more rows than the columns have": setting((), length=3),
    "far more rows": setting((), length=BIG),
    "rows and offset overflow": setting((), length=BIG, offset=BIG),
    "rows behind the columns": setting((), length=2, offset=1),
    "all rows behind the columns": setting((), offset=5),
    "negative rows": setting((), length=-1),
    "negative offset": setting((), offset=-1),
    "a column with fewer rows": setting((0,), length=1),
    "another column with fewer rows": setting((1,), length=1),
    "a column with no rows": setting((1,), length=0),
    "a column with negative rows": setting((1,), length=-2),
    "a column at a negative offset": setting((0,), offset=-1),
    "a column whose end overflows": setting((1,), offset=2**63 - 1),
    "a column whose bytes overflow": setting((1,), offset=BIG),
    "fewer values than the offsets say": setting((2, 0), length=1),
    "no values": setting((2, 0), length=0),
    "negative values": setting((2, 0), length=-24),
    "values whose bytes overflow": setting((2, 0), length=BIG),
    "more nulls than rows": setting((0,), null_count=3),
    "nulls without a bitmap": setting((2, 0), null_count=1),
    "too few buffers": setting((0,), n_buffers=1),
    "no buffers": setting((1,), n_buffers=0),
    "negative buffers": setting((1,), n_buffers=-1),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("call", [quantize_batch_arrow, dequantize_batch_arrow])
def test_numbers_that_do_not_fit_are_refused(what: str, call: Callable[[Any], pa.Table]) -> None:
    table = layers() if call is quantize_batch_arrow else quantize_batch_arrow(layers())
    with pytest.raises(ValueError, match=r"ArrowArray|Expected|corrupt") as caught:
        call(Changed(table, WRONG[what]))
    assert "internal error" not in str(caught.value)


def test_columns_of_too_many_rows_are_refused() -> None:
    """A stream of batches has whole columns, as PyArrow sees it."""
    with pytest.raises(
        ValueError, match="Column 'layer_name' is corrupt: it has 2 rows, the table 1"
    ):
        quantize_batch_arrow(Changed(layers(), setting((), length=1)))


def test_rows_of_every_batch_are_counted() -> None:
    """Streams are checked batch by batch."""
    stream = quantize_stream(Changed(layers(), WRONG["more rows than the columns have"]))
    with pytest.raises(ValueError, match="it has 2 rows, the table 3"):
        stream.read_all()


def test_what_nobody_reads_may_be_wrong() -> None:
    table = layers()
    ignored = table.append_column("more", pa.array([1, 2]))
    changed = Changed(ignored, setting((table.num_columns,), length=1))
    assert_same(quantize_batch_arrow(changed), quantize_batch_arrow(table))
