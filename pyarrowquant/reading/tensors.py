"""Tensors that lie in files, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.quoting import quoted, shortened
from pyarrowquant._core.results import Floats
from pyarrowquant._core.rows import ITEM_BYTES
from pyarrowquant._core.shapes import product

Piece = Callable[[], npt.NDArray[Any]]
# Makes a batch of layers that are decoded, and gets those of the next such batch, if there is one.
Decode = Callable[[Sequence["Tensor"], Sequence["Tensor"] | None], pa.RecordBatch]

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

# As in numpy, which has the most of all that reads such files.
MOST_DIMENSIONS = 64


@dataclass(frozen=True)
class Tensor:
    """A tensor and the bytes of its file that are its own, from begin to end."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def stored_bytes(self) -> int:
        """Bytes that it takes, with those of all tensors that it is made of."""
        return self.end - self.begin

    @property
    def stored_dtype(self) -> str:
        """What its file has."""
        return self.dtype


@dataclass(frozen=True)
class CodedTensor(Tensor):
    """A layer that its file has as codes, which reading decodes to F32.

    Its shape is that of the layer, its bytes of the file are those of the codes.

    Attributes
    ----------
    coding : str
        What it is decoded from, such as "Q8_0".
    bits : int
        Of a code.
    scale_bytes : int
        Of all that codes are decoded with, where that are tensors of their own.
    decode : callable
        Reads and decodes it.
    decode_matrix : callable or None
        Reads and decodes one of the matrices of a stack, if that can be done by itself.
    read_mxfp4 : callable or None
        Reads one of the matrices of a stack of MXFP4 as it is: pairs of codes, of which 16 bytes
        are a group, and an exponent for each group.
    is_turned : bool
        Whether it is a stack whose matrices have rows for columns in a checkpoint of floats.
    """

    coding: str
    bits: int
    scale_bytes: int
    decode: Callable[[], Floats]
    decode_matrix: Callable[[int], Floats] | None = None
    read_mxfp4: Callable[[int], tuple[Bytes, Bytes]] | None = None
    is_turned: bool = False

    @property
    def stored_bytes(self) -> int:
        return self.end - self.begin + self.scale_bytes

    @property
    def stored_dtype(self) -> str:
        return self.coding


@dataclass(frozen=True)
class MadeTensor(Tensor):
    """A layer that is made of others when it is read; its bytes are those of no file.

    Attributes
    ----------
    pieces : sequence of callables
        Make it, a few of its first dimension after the other; bfloat16 as its bits.
    """

    pieces: Sequence[Piece]

    @classmethod
    def of(
        cls, name: str, dtype: str, shape: tuple[int, ...], pieces: Sequence[Piece]
    ) -> MadeTensor:
        return cls(name, dtype, shape, 0, ITEM_BYTES[dtype] * product(shape), pieces)

    def decode(self) -> npt.NDArray[Any]:
        """Make all of it."""
        if len(self.pieces) == 1:
            return self.pieces[0]()
        whole, end = None, 0
        for piece in self.pieces:
            made = piece().reshape(-1)
            if whole is None:
                whole = np.empty(product(self.shape), made.dtype)
            start, end = end, end + made.size
            whole[start:end] = made
            del made  # before the next one is made
        assert whole is not None
        return whole.reshape(self.shape)


# What is read by itself, and not where it lies.
DECODED = (CodedTensor, MadeTensor)
_TOGETHER = 1 << 25  # bytes of such layers in a batch, which are copied there


@dataclass(frozen=True)
class UndecodableTensor(Tensor):
    """A tensor of codes that cannot be decoded.

    Attributes
    ----------
    problem : str
        Why not.
    damaged_file : str or None
        The file that lacks something, or has what cannot be, if that is why.
    serves : bool
        Whether it has no codes itself, and only serves others.
    """

    problem: str
    damaged_file: str | None = None
    serves: bool = False


def is_damaged(tensor: Tensor) -> bool:
    """Whether a tensor could be decoded, but for what a file lacks or has wrong."""
    return isinstance(tensor, UndecodableTensor) and tensor.damaged_file is not None


def bit_count(shape: Sequence[int], bits: int, what: str, dtype: str | None = None) -> int:
    """Return the bits of a tensor, within the bounds that other readers have.

    Parameters
    ----------
    shape : sequence of int
    bits : int
        Those of an element.
    what : str
        What errors begin with.
    dtype : str, optional
        What errors call the elements.
    """
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(
            f"{what} has {len(shape)} dimensions, the most allowed is {MOST_DIMENSIONS}"
        )
    if any(type(size) is not int or not 0 <= size < 2**63 for size in shape):
        raise ValueError(f"{what} has shape {quoted(list(shape))}, beyond 0 to 2^63-1")
    found = product((*shape, bits))
    if found >= 2**64:
        kind = "" if dtype is None else f" of {dtype}"
        raise ValueError(f"{what}: shape {quoted(list(shape))}{kind} has 2^64 bits and more")
    return found


def select(tensors: Sequence[Tensor], only_floats: bool) -> list[Tensor]:
    return [tensor for tensor in tensors if is_layer(tensor) or not only_floats]


def is_layer(tensor: Tensor) -> bool:
    """Whether a tensor has weights that can be quantized."""
    return tensor.dtype in FLOATS and not isinstance(tensor, UndecodableTensor)


def check_some_left(path: object, tensors: Sequence[Tensor], selected: Sequence[Tensor]) -> None:
    """Raise where there are tensors, and none of them can be quantized."""
    if tensors and not selected:
        dtypes = shortened(", ".join(sorted({tensor.dtype for tensor in tensors})))
        raise ValueError(
            f"{path}: no tensor can be quantized, of {len(tensors)}, whose dtypes are "
            f"{dtypes}. Convert them to F32, F16 or BF16; in Python, "
            "read_weights() with only_floats=False gives them as they are"
        )


def runs(tensors: Sequence[Tensor], batch_bytes: int) -> Iterator[list[Tensor]]:
    """Part tensors into runs without bytes of others in between, none too long for a batch.

    A tensor that is too long by itself is a run of its own. Tensors that are decoded are with
    others of these, if they are small.
    """
    run: list[Tensor] = []
    size = 0
    for tensor in tensors:
        is_decoded = isinstance(tensor, DECODED)
        more = bytes_in_batch(tensor)
        most = min(batch_bytes, _TOGETHER) if is_decoded else batch_bytes
        if run and (
            is_decoded != isinstance(run[0], DECODED)
            or size + more > most
            or not (is_decoded or tensor.begin == run[-1].end)
        ):
            yield run
            run, size = [], 0
        run.append(tensor)
        size += more
    if run:
        yield run


def decoded_bytes_of(tensor: Tensor) -> int:
    """Return the bytes of a layer that is decoded."""
    return ITEM_BYTES[tensor.dtype] * product(tensor.shape)


def bytes_in_batch(tensor: Tensor) -> int:
    """Return the bytes that a tensor has in a batch."""
    return decoded_bytes_of(tensor) if isinstance(tensor, DECODED) else tensor.end - tensor.begin


def in_a_row(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors as if one followed the other."""
    placed, position = [], 0
    for tensor in tensors:
        size = tensor.end - tensor.begin
        placed.append(replace(tensor, begin=position, end=position + size))
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


def decoded_batch(tensors: Sequence[Tensor]) -> pa.RecordBatch:
    """Make a batch of layers that are decoded now."""
    ends = list(accumulate(map(decoded_bytes_of, tensors), initial=0))
    data = np.empty(ends[-1] if len(tensors) > 1 else 0, np.uint8)
    placed = []
    for tensor, begin, end in zip(tensors, ends, ends[1:], strict=False):
        assert isinstance(tensor, DECODED)
        decoded = _as_bytes(tensor.decode())
        if len(tensors) == 1:
            data = decoded
        else:
            data[begin:end] = decoded
        del decoded  # before the next one is made
        placed.append(Tensor(tensor.name, tensor.dtype, tensor.shape, begin, end))
    return batch_of(placed, pa.py_buffer(data))


def decoded_pieces(tensor: CodedTensor | MadeTensor) -> Iterator[npt.NDArray[Any]]:
    """Decode a layer, a piece after the other."""
    if isinstance(tensor, MadeTensor):
        for piece in tensor.pieces:
            yield piece()
    elif tensor.decode_matrix is not None:
        yield from map(tensor.decode_matrix, range(tensor.shape[0]))
    else:
        yield tensor.decode()


def decoded_bytes(tensor: CodedTensor | MadeTensor) -> Iterator[Bytes]:
    """Decode a layer, and give the bytes of its pieces, which are little-endian."""
    return map(_as_bytes, decoded_pieces(tensor))


def _as_bytes(weights: npt.NDArray[Any]) -> Bytes:
    weights = np.ascontiguousarray(weights)
    little = weights.astype(weights.dtype.newbyteorder("<"), copy=False)
    return little.reshape(-1).view(np.uint8)
