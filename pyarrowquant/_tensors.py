"""Tensors that lie in files, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

# Raw bytes of these can be quantized.
FLOATS = frozenset({"F32", "F16", "BF16"})

SCHEMA = pa.schema(
    [
        ("layer_name", pa.string()),
        # Views could leave out tensors in between, but none can be longer than 2 GiB.
        ("weights", pa.large_binary()),
        ("shape", pa.list_(pa.int64())),
        ("dtype", pa.string()),
    ]
)

_LONGEST_TEXT = 100


@dataclass(frozen=True)
class Tensor:
    """A tensor and the bytes of its file that are its own, from begin to end."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def quoted(value: object) -> str:
    """Show a value of a file in one line that is not too long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."


def select(tensors: Sequence[Tensor], only_floats: bool) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.dtype in FLOATS or not only_floats]


def check_some_left(path: object, tensors: Sequence[Tensor], selected: Sequence[Tensor]) -> None:
    """Raise where there are tensors, and none of them can be quantized."""
    if tensors and not selected:
        dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors}))
        raise ValueError(
            f"{path}: none of the {len(tensors)} tensors can be quantized, their dtypes are "
            f"{dtypes}. Convert them to F32, F16 or BF16, or read them with only_floats=False"
        )


def runs(tensors: Sequence[Tensor], batch_bytes: int) -> Iterator[list[Tensor]]:
    """Part tensors into runs without bytes of others in between, none too long for a batch.

    A tensor that is too long by itself is a run of its own.
    """
    run: list[Tensor] = []
    for tensor in tensors:
        if run and (tensor.begin != run[-1].end or tensor.end - run[0].begin > batch_bytes):
            yield run
            run = []
        run.append(tensor)
    if run:
        yield run


def in_a_row(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors as if one followed the other."""
    placed, position = [], 0
    for tensor in tensors:
        size = tensor.end - tensor.begin
        placed.append(Tensor(tensor.name, tensor.dtype, tensor.shape, position, position + size))
        position += size
    return placed


def batch_of(run: Sequence[Tensor], data: Any) -> pa.RecordBatch:
    """Make a batch from a run and the buffer of its bytes, which is not copied."""
    ends = [tensor.end - run[0].begin for tensor in run]
    offsets = pa.py_buffer(np.array([0, *ends], np.int64))
    return pa.record_batch(
        [
            pa.array([tensor.name for tensor in run], pa.string()),
            pa.Array.from_buffers(pa.large_binary(), len(run), [None, offsets, data]),
            pa.array([tensor.shape for tensor in run], pa.list_(pa.int64())),
            pa.array([tensor.dtype for tensor in run], pa.string()),
        ],
        schema=SCHEMA,
    )
