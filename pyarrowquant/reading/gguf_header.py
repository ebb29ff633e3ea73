"""Headers of GGUF files: metadata, which is decoded when it is asked for, and tensors.

A header is the magic, a version and two counts; the keys with their values; and names, dimensions,
types and offsets of the tensors, whose bytes follow from the next multiple of the alignment. All
is little-endian. Lengths and counts are not trusted: each is compared with the bytes that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.tensors import Tensor, bit_count

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

# The numbers of value types, with the struct module's letters for those of a fixed size.
UINT16, UINT32, INT32, BOOL, STRING, ARRAY = 2, 4, 5, 7, 8, 9
CODES = {
    0: "B",
    1: "b",
    UINT16: "H",
    3: "h",
    UINT32: "I",
    INT32: "i",
    6: "f",
    BOOL: "B",
    10: "Q",
    11: "q",
    12: "d",
}
_SCALARS = {kind: np.dtype(f"<{code}") for kind, code in CODES.items()}
_VALUE_TYPES = frozenset({*CODES, STRING})

_U32, _U64 = Struct("<I"), Struct("<Q")
_COUNTS = Struct("<QQ")

# Bytes of a key with its value, and of a tensor, that have nothing of variable length.
_LEAST_KEY = 8 + 4 + 1
_LEAST_TENSOR = 8 + 4 + 4 + 8


class EndsEarlyError(ValueError):
    """The header goes on beyond the bytes that are given."""


@dataclass(frozen=True)
class Value:
    """What a key says: the bytes from begin to end, not decoded yet.

    Attributes
    ----------
    start : int
        Where the key itself begins.
    type : int
        The number of the value type; for an array, that of its elements.
    count : int or None
        The number of elements of an array, None for any other value.
    """

    key: str
    start: int
    type: int
    count: int | None
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The metadata and the tensors of a file, in the order of the header.

    Attributes
    ----------
    values : mapping of str to Value
    tensors : list of Tensor
        With the names that ggml has for types, and shapes with the outermost dimension first.
    alignment : int
        Of the data of tensors.
    size : int
        How many bytes the file has.
    """

    values: Mapping[str, Value]
    tensors: list[Tensor]
    alignment: int
    size: int
    _data: memoryview
    _path: str

    def value(self, key: str) -> Any:
        """Decode a value; None for a key that is not there."""
        value = self.values.get(key)
        return None if value is None else _decoded(self._data, value, self._path)

    def encoded_keys(self) -> Iterator[tuple[str, bytes]]:
        """Give keys, and the bytes that the header has for each with its value."""
        for key, value in self.values.items():
            yield key, bytes(self._data[value.start : value.end])


def read_header(
    data: memoryview, size: int, path: str, types: Mapping[int, tuple[str, int, int]]
) -> Header:
    """Read the header of a file.

    Parameters
    ----------
    data : memoryview
        The first bytes of the file.
    size : int
        How many bytes the file has.
    path : str
        What errors call the file.
    types : mapping of int to (str, int, int)
        For the number of each tensor type its name, the elements of a block, and a block's bytes.

    Raises
    ------
    EndsEarlyError
        The header does not end within `data`.
    ValueError
        The file is no GGUF file, damaged, or of a kind that is not read.
    """
    return _Parser(data, size, path, types).header()


def read_keys(data: memoryview, size: int, path: str) -> Header:
    """Read what a file says of itself, whatever tensors it has: those of the header are none."""
    return _Parser(data, size, path, {}).keys()


def _decoded(data: memoryview, value: Value, path: str) -> Any:
    items = list(_items(data, value))
    if value.type == STRING:
        try:
            items = [text.decode() for text in items]
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: the value of key {quoted(value.key)} is not UTF-8: {error}"
            ) from None
    return items[0] if value.count is None else items


def _items(data: memoryview, value: Value) -> Iterable[Any]:
    """Return the elements of a value, or what is no array as the only one; texts as bytes."""
    data = data[value.begin : value.end]
    if value.type == STRING:
        return _texts(data, 1 if value.count is None else value.count)
    numbers = np.frombuffer(data, _SCALARS[value.type])
    found: list[Any] = (numbers != 0 if value.type == BOOL else numbers).tolist()
    return found


def _texts(data: memoryview, count: int) -> Iterator[bytes]:
    position = 0
    for _ in range(count):
        begin = position + 8
        position = begin + _U64.unpack_from(data, position)[0]
        yield bytes(data[begin:position])


def _check_apart(tensors: Sequence[Tensor], path: str) -> None:
    """Check that no tensors overlap: many of one place would be far more than the file has."""
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin < end and tensor.begin < tensor.end:
            raise ValueError(
                f"{path}: tensor {quoted(tensor.name)} begins at {tensor.begin} of the file, "
                f"within tensor {quoted(before)}, which ends at {end}"
            )
        end, before = max(end, tensor.end), tensor.name


class _Parser:
    """Walks through a header."""

    def __init__(
        self, data: memoryview, size: int, path: str, types: Mapping[int, tuple[str, int, int]]
    ) -> None:
        self._data = data
        self._size = size
        self._path = path
        self._types = types
        self._position = 0

    def header(self) -> Header:
        tensor_count, values = self._start()
        self._check_room(tensor_count, _LEAST_TENSOR, "tensors")
        infos = [self._tensor() for _ in range(tensor_count)]
        alignment = self._alignment(values.get("general.alignment"))
        first = -(-self._position // alignment) * alignment
        tensors = self._placed(infos, first)
        return Header(values, tensors, alignment, self._size, self._data, self._path)

    def keys(self) -> Header:
        _, values = self._start()
        return Header(values, [], DEFAULT_ALIGNMENT, self._size, self._data, self._path)

    def _start(self) -> tuple[int, dict[str, Value]]:
        """Return how many tensors there are, and the keys."""
        self._check_start()
        tensor_count, key_count = _COUNTS.unpack(self._take(_COUNTS.size, "its counts"))
        self._check_room(key_count, _LEAST_KEY, "keys")
        values: dict[str, Value] = {}
        for _ in range(key_count):
            value = self._value()
            if values.setdefault(value.key, value) is not value:
                raise self._error(f"the key {quoted(value.key)} is there twice")
        return tensor_count, values

    def _check_start(self) -> None:
        if bytes(self._take(4, "its magic")) != _MAGIC:
            raise self._error("it does not begin with GGUF")
        start = self._take(4, "its version")
        version = int.from_bytes(start, "little")
        if int.from_bytes(start, "big") in _VERSIONS:
            raise ValueError(
                f"{self._path}: the file is big-endian, only little-endian ones are read"
            )
        if version not in _VERSIONS:
            raise self._error(f"its version is {version}, known are 2 and 3")

    def _value(self) -> Value:
        start = self._position
        key = self._text("a key")
        what = f"key {quoted(key)}"
        type_, count = self._number(_U32, what), None
        if type_ == ARRAY:
            type_, count = self._number(_U32, what), self._number(_U64, what)
            if type_ == ARRAY:
                raise self._error(f"{what} is an array of arrays, which ggml does not read either")
        if type_ not in _VALUE_TYPES:
            raise self._error(f"{what} has the value type {type_}, the last known is 12")
        begin = self._position
        least = 8 if type_ == STRING else _SCALARS[type_].itemsize
        items = 1 if count is None else count
        if items * least > len(self._data) - begin:
            raise self._ends_early(
                f"{what} has {items} values of {least} bytes and more, "
                f"{len(self._data) - begin} bytes are left"
            )
        if type_ == STRING:
            self._skip_texts(items, what)
        else:
            self._position += items * least
        return Value(key, start, type_, count, begin, self._position)

    def _skip_texts(self, count: int, what: str) -> None:
        # A vocabulary has hundreds of thousands, so this calls no other method.
        data, position, unpack = self._data, self._position, _U64.unpack_from
        last = len(data) - 8
        for _ in range(count):
            if position > last:
                break
            position += 8 + unpack(data, position)[0]
        else:
            if position <= len(data):
                self._position = position
                return
        raise self._ends_early(f"a text of {what} ends beyond its end")

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text("a tensor's name")
        what = f"tensor {quoted(name)}"
        count = self._number(_U32, what)
        shape = np.frombuffer(self._take(8 * count, f"the dimensions of {what}"), "<u8")
        type_ = self._number(_U32, what)
        return name, tuple(shape[::-1].tolist()), type_, self._number(_U64, what)

    def _placed(
        self, infos: list[tuple[str, tuple[int, ...], int, int]], first: int
    ) -> list[Tensor]:
        """Check the tensors, whose offsets count from `first` of the file."""
        tensors: dict[str, Tensor] = {}
        for name, shape, type_, offset in infos:
            what = f"{self._path}: tensor {quoted(name)}"
            if type_ not in self._types:
                raise ValueError(f"{what} has type {type_}, which gguf does not know")
            type_name, block, block_bytes = self._types[type_]
            size = bit_count(shape, 8 * block_bytes, what, type_name) // 8 // block
            if block > 1 and (not shape or shape[-1] % block):
                raise ValueError(
                    f"{what}: shape {quoted(list(shape))} of {type_name} has columns that are no "
                    f"multiple of {block}"
                )
            begin = first + offset
            tensor = Tensor(name, type_name, shape, begin, begin + size)
            if tensor.end > self._size:
                raise ValueError(
                    f"{what} lies beyond the file: it ends at {tensor.end}, the file has "
                    f"{self._size} bytes"
                )
            if tensors.setdefault(name, tensor) is not tensor:
                raise ValueError(f"{what} is there twice")
        placed = list(tensors.values())
        _check_apart(placed, self._path)
        return placed

    def _alignment(self, value: Value | None) -> int:
        if value is None:
            return DEFAULT_ALIGNMENT
        if value.type != UINT32 or value.count is not None:
            raise self._error("general.alignment is no uint32")
        alignment = int(_decoded(self._data, value, self._path))
        if alignment.bit_count() != 1:
            raise self._error(f"general.alignment is {alignment}, it must be a power of two")
        return alignment

    def _check_room(self, count: int, least: int, what: str) -> None:
        left = len(self._data) - self._position
        if count * least > left:
            raise self._ends_early(
                f"it has {count} {what} of {least} bytes and more, {left} bytes are left"
            )

    def _text(self, what: str) -> str:
        data = self._take(self._number(_U64, what), what)
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise self._error(f"{what} is not UTF-8: {error}") from None

    def _number(self, kind: Struct, what: str) -> int:
        number: int = kind.unpack(self._take(kind.size, what))[0]
        return number

    def _take(self, count: int, what: str) -> memoryview:
        begin = self._position
        if count > len(self._data) - begin:
            raise self._ends_early(f"{what} ends beyond its end")
        self._position += count
        return self._data[begin : self._position]

    def _error(self, problem: str) -> ValueError:
        return ValueError(self._unreadable(problem))

    def _ends_early(self, problem: str) -> EndsEarlyError:
        return EndsEarlyError(self._unreadable(problem))

    def _unreadable(self, problem: str) -> str:
        return f"{self._path}: no GGUF file that can be read: {problem}"
