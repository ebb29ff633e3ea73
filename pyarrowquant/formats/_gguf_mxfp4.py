"""Stacks that a source has as MXFP4, as blocks of ggml."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.shapes import product
from pyarrowquant.reading.tensors import CodedTensor, Tensor

TYPE = "MXFP4"
_COLUMNS, _BYTES = 32, 17  # of a block


@dataclass(frozen=True)
class Mxfp4Stack:
    """A stack of MXFP4 that is written with the codes and exponents that it has.

    Attributes
    ----------
    matrices : int
    nbytes : int
    read : callable
        Gives codes and exponents of a matrix.
    """

    matrices: int
    nbytes: int
    read: Callable[[int], tuple[Bytes, Bytes]]

    @classmethod
    def of(cls, tensor: Tensor) -> Mxfp4Stack | None:
        """Return what a tensor is written as that is not quantized; None for any other."""
        if not isinstance(tensor, CodedTensor) or tensor.read_mxfp4 is None:
            return None
        size = product(tensor.shape) // _COLUMNS * _BYTES
        return cls(tensor.shape[0], size, tensor.read_mxfp4)

    def blocks(self) -> Iterator[Bytes]:
        """Lay out a matrix after the other.

        A byte of the source has neighbours, one of ggml the code that is half a block further too.
        """
        for number in range(self.matrices):
            pairs, exponents = self.read(number)
            codes = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(*exponents.shape, _COLUMNS)
            blocks = np.empty((*exponents.shape, _BYTES), np.uint8)
            blocks[..., 0] = exponents
            half = _COLUMNS // 2
            blocks[..., 1:] = codes[..., :half] | codes[..., half:] << 4
            yield blocks.reshape(-1)
