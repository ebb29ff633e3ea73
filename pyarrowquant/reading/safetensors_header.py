"""Headers of safetensors files, checked as the format demands.

A file is 8 bytes with the length of the header, little-endian; the header, a JSON object; and the
bytes of the tensors without holes, to the end of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.opened import MappedFile, ReadFile
from pyarrowquant.reading.strict_json import parse_object
from pyarrowquant.reading.tensors import Tensor, bit_count

LONGEST_HEADER = 100_000_000

# Bits of an element.
BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

_FIELDS = ("dtype", "shape", "data_offsets")


def read_tensors(file: MappedFile | ReadFile, path: str) -> list[Tensor]:
    """Return the tensors of an open file, in the order of their bytes.

    Parameters
    ----------
    file : MappedFile or ReadFile
    path : str
        What errors call the file.
    """
    return read_header(file, path)[0]


def read_header(file: MappedFile | ReadFile, path: str) -> tuple[list[Tensor], Mapping[str, str]]:
    """Return what `read_tensors` does, and what the header says beside the tensors."""
    if file.size < 8:
        raise ValueError(
            f"{path}: the file has {file.size} bytes, a safetensors file has 8 for the length of "
            "its header, and a header"
        )
    length = int.from_bytes(file.buffer(0, 8).to_pybytes(), "little")
    if length > LONGEST_HEADER:
        raise ValueError(
            f"{path}: the length of the header is {length}, the most allowed is {LONGEST_HEADER}. "
            "Is it a safetensors file?"
        )
    if length > file.size - 8:
        raise ValueError(
            f"{path}: the header has {length} bytes, the file has {file.size - 8} after its first "
            "8. Is it complete?"
        )
    header = parse_object(file.buffer(8, length).to_pybytes(), f"{path}: the header")
    metadata = header.pop("__metadata__", None)
    _check_metadata(metadata, path)
    first = 8 + length
    tensors = [_tensor(name, value, first, path) for name, value in header.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_cover(tensors, first, file.size, path)
    return tensors, metadata or {}


def _check_metadata(metadata: object, path: str) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}: __metadata__ must be an object, it is {quoted(metadata)}")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise ValueError(
                f"{path}: __metadata__ {quoted(key)} must be a string, it is {quoted(value)}"
            )


def _tensor(name: str, value: Any, first: int, path: str) -> Tensor:
    """Check all about a tensor but its neighbours. Its bytes count from `first` of the file."""
    what = f"{path}: tensor {quoted(name)}"
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object with {', '.join(_FIELDS)}: {quoted(value)}")
    for field in _FIELDS:
        if field not in value:
            raise ValueError(f"{what} has no {field}")
    dtype, shape, offsets = (value[field] for field in _FIELDS)
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"{what} has dtype {quoted(dtype)}. Known are {', '.join(BITS)}")
    if not isinstance(shape, list) or not all(_is_size(dimension) for dimension in shape):
        raise ValueError(f"{what} has shape {quoted(shape)}, which must be integers of 0 to 2^63-1")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise ValueError(
            f"{what} has data_offsets {quoted(offsets)}, which must be two integers, not negative"
        )
    begin, end = offsets
    if begin > end:
        raise ValueError(f"{what} has data_offsets {quoted(offsets)}, which end before they begin")
    bits = bit_count(shape, BITS[dtype], what, dtype)
    if bits % 8:
        raise ValueError(
            f"{what}: shape {quoted(shape)} of {dtype} has {bits} bits, which are no whole bytes"
        )
    if end - begin != bits // 8:
        raise ValueError(
            f"{what}: shape {quoted(shape)} of {dtype} has {bits // 8} bytes, data_offsets "
            f"{quoted(offsets)} have {end - begin}"
        )
    return Tensor(name, dtype, tuple(shape), first + begin, first + end)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _check_cover(tensors: list[Tensor], first: int, size: int, path: str) -> None:
    """Check that tensors follow each other, from the first byte of data to the file's end."""
    position = first
    for tensor in tensors:
        what = f"{path}: tensor {quoted(tensor.name)}"
        offsets = f"data_offsets {[tensor.begin - first, tensor.end - first]}"
        if tensor.begin < position:
            raise ValueError(
                f"{what}: {offsets} overlap the tensor before, which ends at {position - first}"
            )
        if tensor.begin > position:
            raise ValueError(
                f"{what}: {offsets} leave a hole, what is before ends at {position - first}"
            )
        if tensor.end > size:
            raise ValueError(
                f"{what}: {offsets} are beyond the data, which has {size - first} bytes. "
                "Is the file complete?"
            )
        position = tensor.end
    if position != size:
        raise ValueError(
            f"{path}: the file has {size - first} bytes of data, its tensors have "
            f"{position - first}"
        )
