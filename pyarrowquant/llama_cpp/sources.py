"""What tensors of a folder become: renamed, moved, joined, or made float32."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant._core.shapes import product
from pyarrowquant.llama_cpp.rows import Change
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.stored import Stored, numbers
from pyarrowquant.reading.tensors import (
    FLOATS,
    CodedTensor,
    MadeTensor,
    Tensor,
    UndecodableTensor,
)

# What llama.cpp reads as float32, beside vectors.
_FLOAT32 = re.compile(
    r".*(_norm\.weight|ffn_gate_inp(_shexp)?\.weight|(^|\.)(position_embd|token_types)\.weight)"
)
_READABLE = FLOATS | {"F64"}
_ALL = slice(None)


def is_float32(name: str, shape: Sequence[int]) -> bool:
    """Whether llama.cpp reads a tensor as float32, whatever the model's dtype."""
    return len(shape) <= 1 or not name.endswith(".weight") or _FLOAT32.match(name) is not None


@dataclass(frozen=True)
class Source:
    """A tensor of the folder, and what is done to it.

    Attributes
    ----------
    expert : int or None
        Which matrix of a stack it becomes.
    """

    stored: Stored
    change: Change | None
    expert: int | None

    @property
    def tensor(self) -> Tensor:
        return self.stored.tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape if self.change is None else self.change.shape

    def check(self, folder: object) -> None:
        """Raise where it has no floats."""
        tensor = self.tensor
        if isinstance(tensor, UndecodableTensor):
            what = f"dtype {tensor.dtype}, and {tensor.problem}"
        elif tensor.dtype not in _READABLE:
            what = f"dtype {tensor.dtype}"
        else:
            return
        raise ValueError(
            f"'{folder}': {quoted(tensor.name)} has {what}. llama.cpp computes with floats: take "
            "the model with weights of F32, F16 or BF16"
        )

    def dtype(self, name: str) -> str:
        """Return the dtype of what becomes of it under a name."""
        computes = self.change is not None and self.change.computes
        if computes or self.tensor.dtype == "F64" or is_float32(name, self.shape):
            return "F32"
        return self.tensor.dtype

    def read(self, dtype: str, rows: slice = _ALL) -> Array:
        """Return what becomes of it, or of some matrices of a stack; bfloat16 as its bits."""
        if isinstance(self.tensor, CodedTensor):
            return self._changed(self.tensor.decode())
        if isinstance(self.tensor, MadeTensor):
            return self._read_of(self.tensor.decode()[rows], dtype)
        with self.stored.open() as whole:
            return self._read_of(whole if rows == _ALL else whole[rows], dtype)

    def _read_of(self, array: Array, dtype: str) -> Array:
        if dtype == self.tensor.dtype:
            return np.array(self._changed(array))
        return self._changed(numbers(array, self.tensor.dtype).astype(np.float32, copy=False))

    def _changed(self, array: Array) -> Array:
        return array if self.change is None else self.change.apply(array)

    def alone(self, name: str) -> Tensor:
        """Return the tensor that it becomes by itself."""
        dtype = self.dtype(name)
        if isinstance(self.tensor, CodedTensor):
            return self._decoded(name, self.tensor)
        if self.change is None and dtype == self.tensor.dtype:
            return replace(self.tensor, name=name)  # which is read where it lies
        if len(self.tensor.shape) < 3:
            return MadeTensor.of(name, dtype, self.shape, [partial(self.read, dtype)])
        matrices = (slice(i, i + 1) for i in range(self.shape[0]))
        pieces = [partial(self.read, dtype, each) for each in matrices]
        return MadeTensor.of(name, dtype, self.shape, pieces)

    def _decoded(self, name: str, tensor: CodedTensor) -> Tensor:
        whole, taken = product(tensor.shape), product(self.shape)  # of which others may have some
        changed = replace(
            tensor,
            name=name,
            shape=self.shape,
            end=tensor.begin + (tensor.end - tensor.begin) * taken // max(whole, 1),
            scale_bytes=tensor.scale_bytes * taken // max(whole, 1),
            decode=partial(self.read, "F32"),
        )
        read, read_mxfp4 = tensor.decode_matrix, tensor.read_mxfp4
        if read is None:
            return changed

        def matrix(number: int) -> Floats:
            changed: Floats = self._changed(read(number)[np.newaxis])[0]
            return changed

        def mxfp4(number: int) -> tuple[Bytes, Bytes]:
            assert read_mxfp4 is not None
            codes, exponents = (self._changed(each[np.newaxis])[0] for each in read_mxfp4(number))
            return codes, exponents

        keeps_blocks = read_mxfp4 is not None and (self.change is None or self.change.selects)
        return replace(
            changed,
            decode=partial(_joined, self.shape, matrix),
            decode_matrix=matrix,
            read_mxfp4=mxfp4 if keeps_blocks else None,
        )


def _joined(shape: tuple[int, ...], matrix: Callable[[int], Floats]) -> Floats:
    whole = np.empty(shape, np.float32)
    for number, each in enumerate(whole):
        each[...] = matrix(number)
    return whole


def stacked(name: str, stack: Sequence[Source]) -> Tensor:
    """Return the tensor that matrices of one shape become; float32 if their dtypes differ."""
    dtypes = {part.dtype(name) for part in stack}
    dtype = dtypes.pop() if len(dtypes) == 1 else "F32"
    shape = (len(stack), *stack[0].shape)
    return MadeTensor.of(name, dtype, shape, [partial(part.read, dtype) for part in stack])
