"""Tensors of several files by their names, as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.numbers import E4M3, E8M0, Array
from pyarrowquant.reading.opened import check_size
from pyarrowquant.reading.tensors import Tensor

# numpy's descriptions of what arrays have; floats of 8 and of 16 bits that numpy lacks as their
# codes.
_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I8": "i1",
    "I32": "<i4",
    "I64": "<i8",
    "U32": "<u4",
}


@dataclass(frozen=True)
class Stored:
    """A tensor, its file, and the size that this had when its header was read."""

    location: Location
    size: int
    tensor: Tensor

    @contextmanager
    def open_bytes(self) -> Iterator[Bytes]:
        """Give the bytes of the tensor, mapped where that can be."""
        begin, end = self.tensor.begin, self.tensor.end
        with self.location.open() as file:
            check_size(self.location, self.size, file.size)
            data = file.lone_buffer(begin, end - begin)
            yield np.frombuffer(data, np.uint8) if data.size else np.empty(0, np.uint8)
            file.forget_pages()

    @contextmanager
    def open(self) -> Iterator[Array]:
        """Give the tensor, as an array of its shape."""
        with self.open_bytes() as data:
            dtype = _NUMPY.get(self.tensor.dtype, "u1")
            try:
                array = data.view(dtype).reshape(self.tensor.shape)
            except ValueError as error:  # it has no numbers, and 2^63 bytes without the 0
                raise ValueError(
                    f"{self.location}: tensor {quoted(self.tensor.name)} has shape "
                    f"{quoted(list(self.tensor.shape))}, which is beyond what arrays have"
                ) from error
            yield array

    def part(self, index: Any = ...) -> Array:
        """Return a copy of a part of the tensor, by default of all, in the order of its rows."""
        with self.open() as array:
            return np.array(array[index], order="C")

    def matrix(self, number: int) -> Stored:
        """Return what a stack has for one of its matrices."""
        tensor = self.tensor
        size = (tensor.end - tensor.begin) // tensor.shape[0]
        begin = tensor.begin + number * size
        part = replace(tensor, shape=tensor.shape[1:], begin=begin, end=begin + size)
        return replace(self, tensor=part)

    def read(self) -> Any:
        """Return the numbers of a small tensor, as float32 where they are floats."""
        with self.open() as array:
            return numbers(array, self.tensor.dtype)


def numbers(array: Array, dtype: str) -> Array:
    """Return what an array has, as float32 where that is floats."""
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E4M3":
        return E4M3[array]
    if dtype in ("F8_E8M0", "U8"):
        return E8M0[array]
    if dtype in ("F64", "F32", "F16"):
        with np.errstate(over="ignore"):  # Inf, which is told of where weights are checked
            return array.astype(np.float32)
    return np.array(array)
