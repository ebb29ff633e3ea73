"""Arrays of .npz files: read one after the other, never unpickled."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core.quoting import quoted, shortened
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import (
    Tensor,
    batch_of,
    bit_count,
    check_some_left,
    in_a_row,
    runs,
    select,
)

# numpy's descriptions of types, with the safetensors names.
_DTYPES = {
    "|b1": "BOOL",
    "|u1": "U8",
    "|i1": "I8",
    "<u2": "U16",
    "<i2": "I16",
    "<f2": "F16",
    "<u4": "U32",
    "<i4": "I32",
    "<f4": "F32",
    "<u8": "U64",
    "<i8": "I64",
    "<f8": "F64",
    "<c8": "C64",
}

# Versions of the format: how many bytes have the length of the header, and numpy's parser.
_HEADERS = {
    (1, 0): (2, np.lib.format.read_array_header_1_0),
    (2, 0): (4, np.lib.format.read_array_header_2_0),
}
_LONGEST_HEADER = 10_000  # which is numpy's bound, though it reads longer ones first

_PIECE = 1 << 20

# How many times smaller numpy's compressions can make data, which bounds what a file can ask for.
_RATIOS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}

_FAILURES = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # of zipfile: a compression that it does not know
    RuntimeError,  # of zipfile: encrypted
)


def read_arrays(location: Location) -> list[Tensor]:
    """Read the headers of all arrays. Their bytes count as if one array followed the other."""
    with location.open_unmapped() as file, _archive(file, location) as archive:
        seen: dict[str, Tensor] = {}
        stored = sum(member.compress_size for member in archive.infolist())
        if stored > file.size:
            raise ValueError(
                f"{location}: its arrays overlap: they have {stored} stored bytes, the file "
                f"{file.size}"
            )
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise ValueError(f"{location}: {quoted(name)} is no .npy array")
            if name in seen:
                raise ValueError(f"{location}: array {quoted(name)} is there twice")
            _check_size(member, f"{location}: array {quoted(name)}")
            seen[name] = _read_header(archive, member, name, f"{location}: array {quoted(name)}")
    return in_a_row(list(seen.values()))


def selected(arrays: Sequence[Tensor], only_floats: bool, location: Location) -> list[Tensor]:
    """Leave out arrays that cannot be quantized, if that is wanted; float64 becomes float32."""
    if only_floats:
        arrays = [_as_float32(array) if array.dtype == "F64" else array for array in arrays]
    left = select(arrays, only_floats)
    check_some_left(location, arrays, left)
    for tensor in left:
        if tensor.dtype not in _DTYPES.values():
            raise ValueError(
                f"{location}: array {quoted(tensor.name)} has dtype {tensor.dtype}, which no layer "
                "can have"
            )
    return in_a_row(left)


def _as_float32(array: Tensor) -> Tensor:
    size = (array.end - array.begin) // 2
    return replace(array, dtype="F32", begin=0, end=size)


def read_batches(
    location: Location, tensors: Sequence[Tensor], batch_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Read the arrays of a batch into one buffer."""
    with location.open_unmapped() as file, _archive(file, location) as archive:
        for run in runs(tensors, batch_bytes):
            yield _read_run(archive, run, location)


def _read_run(archive: zipfile.ZipFile, run: list[Tensor], location: Location) -> pa.RecordBatch:
    data = np.empty(run[-1].end - run[0].begin, np.uint8)
    for tensor in run:
        into = data[tensor.begin - run[0].begin : tensor.end - run[0].begin]
        _read_array(archive, tensor, into, f"{location}: array {quoted(tensor.name)}")
    return batch_of(run, pa.py_buffer(data))


def _archive(file: Any, location: Location) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file.stream())
    except (*_FAILURES, OSError, ValueError) as error:
        raise ValueError(f"{location}: no .npz file that can be read: {error}") from error


def _check_size(member: zipfile.ZipInfo, what: str) -> None:
    ratio = _RATIOS.get(member.compress_type)
    if ratio is None:
        raise ValueError(f"{what} has compression {member.compress_type}, which is not numpy's")
    if member.file_size > ratio * member.compress_size:
        raise ValueError(
            f"{what} has {member.file_size} bytes, which {member.compress_size} stored ones cannot "
            "be"
        )


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, what: str) -> Tensor:
    with _opened(archive, member.filename, what) as stream:
        shape, dtype, _ = _parse_header(stream, what)
        size = bit_count(shape, 8 * dtype.itemsize, what, dtype.str) // 8
        left = member.file_size - stream.tell()
    if dtype.hasobject:  # pickled, in as many bytes as that takes
        return Tensor(name, "object", shape, 0, left)
    if size != left:
        raise ValueError(
            f"{what}: shape {quoted(list(shape))} of {dtype.str} has {size} bytes, the file has "
            f"{left}"
        )
    return Tensor(name, _name(dtype) or dtype.str, shape, 0, size)


def _opened(archive: zipfile.ZipFile, member: str, what: str) -> Any:
    try:
        return archive.open(member)
    except (*_FAILURES, OSError, ValueError) as error:
        raise ValueError(f"{what} cannot be read: {error}") from error


def _parse_header(stream: Any, what: str) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Return the shape and the dtype, and whether columns lie together (Fortran's order)."""
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the format, which is for structured arrays")
        length_bytes, parse = _HEADERS[version]
        start = stream.read(length_bytes)
        length = int.from_bytes(start, "little")
        if length > _LONGEST_HEADER:
            raise ValueError(
                f"its header has {length} bytes, the most allowed is {_LONGEST_HEADER}"
            )
        shape, fortran_order, dtype = parse(io.BytesIO(start + stream.read(length)))
    except Exception as error:  # numpy parses the header as Python source
        problem = shortened(" ".join(str(error).split())) or type(error).__name__
        raise ValueError(f"{what} cannot be read: {problem}") from error
    if dtype.str == "|V2":
        raise ValueError(
            f"{what} has dtype '|V2', as numpy saves bfloat16, whose meaning is lost. Save it as "
            "safetensors"
        )
    return shape, dtype, fortran_order


def _read_array(
    archive: zipfile.ZipFile, tensor: Tensor, into: np.ndarray[Any, Any], what: str
) -> None:
    with _opened(archive, f"{tensor.name}.npy", what) as stream:
        shape, dtype, by_columns = _parse_header(stream, what)
        if shape != tensor.shape or tensor.dtype not in _read_as(dtype):
            raise ValueError(f"{what} has changed since its header was read")
        as_it_is = _DTYPES.get(dtype.str) == tensor.dtype and not by_columns
        read = into if as_it_is else np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
        view = read.data
        done = 0
        try:
            while done < len(view):
                count = stream.readinto(view[done : done + _PIECE])
                if not count:
                    break
                done += count
            rest = stream.read(1)  # at its end, zipfile checks the sum
        except (*_FAILURES, OSError) as error:
            raise ValueError(f"{what} cannot be read: {error}") from error
    if done < len(view) or rest:
        raise ValueError(f"{what} has {done} bytes, {len(view)} should be there")
    if not as_it_is:
        array = read.view(dtype).reshape(shape, order="F" if by_columns else "C")
        wanted = np.dtype("<f4") if tensor.dtype == "F32" else dtype.newbyteorder("<")
        _put(array, into.view(wanted).reshape(shape))


def _name(dtype: np.dtype[Any]) -> str | None:
    """Return the safetensors name of a type, in whatever order its bytes are."""
    return _DTYPES.get(dtype.newbyteorder("<").str)


def _read_as(dtype: np.dtype[Any]) -> tuple[str, ...]:
    """Return the names of the dtypes that an array may be read as."""
    name = _name(dtype) or ""
    return (name, "F32") if name == "F64" else (name,)


def _put(array: npt.NDArray[Any], into: npt.NDArray[Any]) -> None:
    with np.errstate(over="ignore"):  # what is beyond float32 is infinite
        into[...] = array


class NpzModel(Model):
    """Arrays of numpy."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._arrays = read_arrays(location)

    @property
    def tensors(self) -> Sequence[Tensor]:
        return self._arrays

    def without(self, names: Collection[str]) -> Model:
        left = copy(self)
        left._arrays = in_a_row([array for array in self._arrays if array.name not in names])
        return left

    def obstacle(self, tensor: Tensor) -> str | None:
        return None if tensor.dtype == "F64" else super().obstacle(tensor)

    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        arrays = selected(self._arrays, only_floats, self.location)
        return islice(read_batches(self.location, arrays, batch_bytes), skip, None)
