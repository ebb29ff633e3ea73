"""Files of importance: how large inputs of layers are.

There are those of `calibrate`, and two kinds that llama.cpp's llama-imatrix writes: GGUF files with
two tensors for each layer, and those of before, with the suffix .dat, which are a list of names and
values. Lengths and counts are not trusted: each is
compared with the bytes that are left.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.gguf_header import read_header, read_keys
from pyarrowquant.reading.importance_kinds import GGUF_TYPE
from pyarrowquant.reading.importance_tensors import SUFFIX, read_importance_tensors
from pyarrowquant.reading.location import Location, locate
from pyarrowquant.reading.tensors import Tensor

_SCHEMA = pa.schema([("layer_name", pa.string()), ("importance", pa.list_(pa.float32()))])
_SUMS, _COUNTS = ".in_sum2", ".counts"
_F32 = {0: ("F32", 1, 4)}  # the only type of ggml that they have
_I32 = Struct("<i")

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Importance:
    """What a file says.

    Attributes
    ----------
    name : str
        Of the file.
    values : mapping of str to array
        For each layer the mean of the squares that each of its columns is multiplied with; of a
        stack of matrices, those of one after the other, or a row for each where the file says so.
    count : int
        How many layers the file has.
    dataset : str or None
        What the inputs came from.
    chunks : int or None
        How many parts of it were used.
    digest : str
        Of all bytes of the file.
    """

    name: str
    values: Mapping[str, _Floats]
    count: int
    dataset: str | None
    chunks: int | None
    digest: str


def read_importance(path: str | os.PathLike[str]) -> pa.Table:
    """Read the importance of columns that `calibrate` or llama.cpp's llama-imatrix has measured.

    Parameters
    ----------
    path : str or path
        A file of `calibrate`, .safetensors, or of llama-imatrix, GGUF or, as before, .dat. A str
        may be a URI, as of `read_weights`.

    Returns
    -------
    pyarrow.Table
        Layers in `layer_name`, by the names of the model, which in files of llama-imatrix are
        llama.cpp's, and in `importance`, a list of float32, the
        mean of the squared inputs of each column: what the column of this name is to
        `quantize_batch_arrow`. For a stack of experts those of one expert after the other; 1 for
        one that had no input.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is damaged, or of another kind.

    Examples
    --------
    >>> import struct
    >>> import pyarrowquant
    >>> name = b"blk.0.attn_q.weight"
    >>> with open("imatrix.dat", "wb") as file:  # one layer of two columns, of four inputs
    ...     _ = file.write(struct.pack("<ii", 1, len(name)) + name)
    ...     _ = file.write(struct.pack("<iiff", 4, 2, 2.0, 6.0))
    >>> pyarrowquant.read_importance("imatrix.dat").to_pylist()
    [{'layer_name': 'blk.0.attn_q.weight', 'importance': [0.5, 1.5]}]
    """
    values = open_importance(path).values
    arrays = [array.reshape(-1) for array in values.values()]
    offsets = np.cumsum([0, *(array.size for array in arrays)])
    if offsets[-1] >= 2**31:
        raise ValueError(f"{os.fspath(path)}: more than 2^31 values, which a list does not hold")
    flat = np.concatenate(arrays) if arrays else np.empty(0, np.float32)
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat))
    return pa.table([pa.array(list(values), pa.string()), lists], schema=_SCHEMA)


def open_importance(path: str | os.PathLike[str]) -> Importance:
    """Read a file of importance, and what it says of itself."""
    return importance_at(locate(path, None))


def importance_at(location: Location) -> Importance:
    """Read the file of importance that lies there."""
    if not location.is_file():
        raise ValueError(
            f"{location} is a folder. Give a file that calibrate or llama-imatrix wrote"
        )
    with location.open() as file:
        data = memoryview(file.buffer(0, file.size))
        if location.name.endswith(SUFFIX):
            values, dataset, chunks = read_importance_tensors(file, location)
        else:
            read = _read_gguf if bytes(data[:4]) == b"GGUF" else _read_list
            values, dataset, chunks = read(data, location)
    if not values:
        raise ValueError(f"{location} has the importance of no layer")
    for name, array in values.items():
        _check_values(name, array.reshape(-1), location)
    digest = hashlib.sha256(data).hexdigest()
    return Importance(location.name, values, len(values), dataset, chunks, digest)


_Read = tuple[dict[str, _Floats], str | None, int | None]


def _read_gguf(data: memoryview, location: Location) -> _Read:
    kind = read_keys(data, len(data), str(location)).value("general.type")
    if kind != GGUF_TYPE:  # before its tensors: those of models are of other types
        raise ValueError(
            f"{location} is GGUF with general.type {quoted(kind)}, not '{GGUF_TYPE}': no file of "
            "importance. Give one that llama-imatrix or calibrate wrote"
        )
    header = read_header(data, len(data), str(location), _F32)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    values = {}
    for name, sums in tensors.items():
        if name.endswith(_SUMS):
            layer = name.removesuffix(_SUMS)
            values[layer] = _means(data, sums, tensors.get(layer + _COUNTS), location)
        elif name.endswith(_COUNTS) and name.removesuffix(_COUNTS) + _SUMS not in tensors:
            raise ValueError(f"{location}: tensor {quoted(name)} is there without its {_SUMS}")
    datasets = header.value("imatrix.datasets")
    dataset = next(iter(datasets), None) if isinstance(datasets, list) else None
    chunks = header.value("imatrix.chunk_count")
    return (
        values,
        dataset if isinstance(dataset, str) else None,
        chunks if isinstance(chunks, int) and not isinstance(chunks, bool) else None,
    )


def _means(data: memoryview, sums: Tensor, counts: Tensor | None, location: Location) -> _Floats:
    """Divide sums of squares by the numbers of inputs, one for each matrix."""
    what = f"{location}: tensor {quoted(sums.name)}"
    if counts is None:
        raise ValueError(f"{what} is there without its {_COUNTS}")
    squares, numbers = _array(data, sums), _array(data, counts)
    if numbers.size == 0 or squares.size % numbers.size or numbers.size not in (1, *sums.shape[:1]):
        raise ValueError(
            f"{what} has shape {list(sums.shape)}, its {_COUNTS} {list(counts.shape)}: they must "
            "be [matrices, columns] and [matrices, 1]"
        )
    matrices = squares.reshape(numbers.size, -1)
    _check_values(counts.name, numbers, location)
    had_input = numbers > 0
    divisors = np.where(had_input, numbers, 1).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # which is found later
        means = matrices / divisors[:, None]
    means = np.where(had_input[:, None], means, np.float32(1))
    return means[0] if len(means) == 1 else means


def _array(data: memoryview, tensor: Tensor) -> _Floats:
    return np.frombuffer(data[tensor.begin : tensor.end], "<f4")


def _read_list(data: memoryview, location: Location) -> _Read:
    reader = _Reader(data, location)
    count = reader.integer("its number of layers", least=1)
    values: dict[str, _Floats] = {}
    for number in range(1, count + 1):
        name = reader.text(f"the name of layer {number} of {count}")
        what = f"layer {quoted(name)}"
        if name in values:
            raise ValueError(f"{location}: {what} is there twice")
        calls = reader.integer(f"the inputs of {what}")
        sums = reader.floats(reader.integer(f"the values of {what}", least=1), what)
        values[name] = sums / np.float32(max(calls, 1))
    if not reader.left:
        return values, None, None
    chunks = reader.integer("its number of chunks")
    return values, reader.text("its dataset") if reader.left else None, chunks


class _Reader:
    """Walks through a list of names and values."""

    def __init__(self, data: memoryview, location: Location) -> None:
        self._data = data
        self._location = location
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def integer(self, what: str, least: int = 0) -> int:
        number: int = _I32.unpack(self._take(_I32.size, what))[0]
        if number < least:
            raise self._error(f"{what} is {number}, it must be at least {least}")
        return number

    def text(self, what: str) -> str:
        raw = self._take(self.integer(f"the length of {what}"), what)
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError as error:
            raise self._error(f"{what} is not UTF-8: {error}") from None

    def floats(self, count: int, what: str) -> _Floats:
        return np.frombuffer(self._take(4 * count, f"the values of {what}"), "<f4")

    def _take(self, size: int, what: str) -> memoryview:
        if size > self.left:
            raise self._error(f"{what} needs {size} bytes, {self.left} are left")
        begin, self._position = self._position, self._position + size
        return self._data[begin : self._position]

    def _error(self, problem: str) -> ValueError:
        return ValueError(
            f"{self._location} is no file of importance, as llama-imatrix writes it, or damaged: "
            f"{problem}"
        )


def _check_values(name: str, values: Any, location: Location) -> None:
    wrong = ~((values >= 0) & np.isfinite(values))
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(
            f"{location}: the importance of {quoted(name)} is {values[index]} at index {index}. It "
            "must be finite and not negative"
        )
