"""ONNX models as their protobuf says, and where the bytes of their tensors lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.tensors import bit_count

_EXTERNAL = 1  # of TensorProto.DataLocation

# Bits of an element by the numbers of TensorProto.DataType; strings have none.
_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
    **dict.fromkeys((27, 28), 6),
}

# Types that MatMul takes: their safetensors names; fields that hold them where raw_data does not,
# with numpy's descriptions; and their own descriptions. 16-bit floats are whole numbers there.
MATMUL_TYPES = {
    1: ("F32", "float_data", "f4", "<f4"),
    6: ("I32", "int32_data", "i4", "<i4"),
    7: ("I64", "int64_data", "i8", "<i8"),
    10: ("F16", "int32_data", "i4", "<u2"),
    11: ("F64", "double_data", "f8", "<f8"),
    12: ("U32", "uint64_data", "u8", "<u4"),
    13: ("U64", "uint64_data", "u8", "<u8"),
    16: ("BF16", "int32_data", "i4", "<u2"),
}


@dataclass(frozen=True)
class Place:
    """A range of a file."""

    location: Location
    begin: int
    size: int

    def read(self) -> Any:
        """Return the bytes as a buffer, mapped where that can be."""
        with self.location.open() as file:
            return file.buffer(self.begin, self.size)


def import_onnx(doing: str) -> Any:
    try:
        import onnx
    except ImportError:
        raise ImportError(f"{doing} ONNX needs onnx: pip install 'pyarrowquant[onnx]'") from None
    return onnx


def load_model(onnx: Any, location: Location) -> Any:
    """Parse a model's file; data that lies in other files stays there."""
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    with location.open() as file:
        try:
            model.ParseFromString(memoryview(file.buffer(0, file.size)))
        except DecodeError as error:
            raise ValueError(f"{location}: no ONNX model that can be read: {error}") from error
    if not model.HasField("graph"):
        raise ValueError(f"{location}: no ONNX model that can be read: it has no graph")
    return model


def messages(message: Any) -> Iterator[Any]:
    """All messages within one, itself included, but none within tensors."""
    yield message
    if message.DESCRIPTOR.name == "TensorProto":
        return
    for _, value in message.ListFields():
        if hasattr(value, "DESCRIPTOR"):
            yield from messages(value)
        elif not isinstance(value, (str, bytes, int, float)):
            for item in value:
                if not hasattr(item, "DESCRIPTOR"):
                    break  # a list of numbers or texts
                yield from messages(item)


def is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == _EXTERNAL)


def external_tensors(model: Any) -> Iterator[Any]:
    return (
        message
        for message in messages(model)
        if message.DESCRIPTOR.name == "TensorProto" and is_external(message)
    )


class ExternalFiles:
    """Files of data beside a model, as far as its tensors refer to them.

    Parameters
    ----------
    model : Location
        The model's file. What it says is not trusted.
    """

    def __init__(self, model: Location) -> None:
        self._model = model
        self._sizes: dict[str, int] = {}

    def place(self, tensor: Any, name: object) -> Place:
        """Find where a tensor's data lies."""
        what = f"{self._model}: tensor {quoted(name)}"
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = _relative(entries.get("location"), what)
        begin = _number(entries, "offset", what) or 0
        size = size_of(tensor, what)
        length = _number(entries, "length", what)
        if size is None and length is None:
            raise ValueError(f"{what} of data type {tensor.data_type} does not say its length")
        if size is not None and length not in (None, size):
            raise ValueError(
                f"{what}: shape {quoted(list(tensor.dims))} has {size} bytes, its external data "
                f"has {length}"
            )
        place = Place(self._model.beside(path), begin, (length or 0) if size is None else size)
        end, most = begin + place.size, self._size_of(path, what)
        if end > most:
            raise ValueError(
                f"{what}: its external data ends at {end}, {quoted(path)} has {most} bytes"
            )
        return place

    def _size_of(self, path: str, what: str) -> int:
        if path not in self._sizes:
            location = self._model.beside(path)
            if not location.exists():
                raise FileNotFoundError(
                    f"{what}: the file of its data, {str(location)!r}, is missing"
                )
            with location.open() as file:
                self._sizes[path] = file.size
        return self._sizes[path]


def embedded_bytes(tensor: Any, name: object, model: Location) -> npt.NDArray[np.uint8]:
    """Bytes of a tensor of a type that MatMul takes, whose data is in the model itself."""
    what = f"{model}: tensor {quoted(name)}"
    size = size_of(tensor, what)
    _, field, field_dtype, dtype = MATMUL_TYPES[tensor.data_type]
    if tensor.HasField("raw_data"):
        data = np.frombuffer(tensor.raw_data, np.uint8)
    else:
        numbers = getattr(tensor, field)
        found = np.fromiter(numbers, field_dtype, len(numbers))
        data = found.astype(dtype).view(np.uint8)
    if data.size != size:
        raise ValueError(
            f"{what}: shape {quoted(list(tensor.dims))} has {size} bytes, its data has {data.size}"
        )
    return data


def buffer_bytes(buffer: pa.Buffer) -> npt.NDArray[np.uint8]:
    return np.frombuffer(buffer, np.uint8) if buffer.size else np.empty(0, np.uint8)


def _relative(path: object, what: str) -> str:
    """Return a path of external data that stays in the model's folder, without its dots."""
    parts = path.split("/") if isinstance(path, str) else [""]
    if "" in parts or ".." in parts or parts[-1] == "." or set("".join(parts)) & set("\\:\0"):
        raise ValueError(
            f"{what}: the file of its data must lie in the model's folder, it is {quoted(path)}"
        )
    return "/".join(part for part in parts if part != ".")


def _number(entries: dict[str, Any], key: str, what: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"{what}: the {key} of its external data is {quoted(text)}, no number")
    return int(text)


def size_of(tensor: Any, what: str) -> int | None:
    """Bytes that a tensor's shape and type ask for, None for a type without a fixed size."""
    shape = list(tensor.dims)
    if any(dimension < 0 for dimension in shape):
        raise ValueError(f"{what} has shape {quoted(shape)}, which is negative")
    bits = _BITS.get(tensor.data_type)
    return None if bits is None else -(-bit_count(shape, bits, what) // 8)
