"""Weights of MatMulNBits nodes, which are codes, as layers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pyarrowquant._core.bounds import BIT_WIDTHS
from pyarrowquant._core.decoding import unpacked
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant._core.shapes import product
from pyarrowquant.reading.decoding import in_pieces
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.onnx_model import (
    ExternalFiles,
    Place,
    buffer_bytes,
    import_onnx,
    is_external,
    messages,
)
from pyarrowquant.reading.tensors import CodedTensor

PACKED = "MatMulNBits"

# What writers add to the name of a weight: this package, and ONNX Runtime.
_ADDED = re.compile(r"(\.codes|_Q\d+(G\d+)?)$")
_FLOAT, _UINT8, _FLOAT16 = 1, 2, 10
_DTYPES = {_FLOAT: "<f4", _UINT8: "u1", _FLOAT16: "<f2"}


@dataclass(frozen=True)
class _Data:
    """A tensor of the model, and where its data lies if not in the model."""

    tensor: Any
    place: Place | None

    @property
    def bytes(self) -> int:
        return product((*self.tensor.dims, np.dtype(_DTYPES[self.tensor.data_type]).itemsize))

    def read(self) -> Array:
        if self.place is not None:
            return buffer_bytes(self.place.read()).view(_DTYPES[self.tensor.data_type])
        array: Array = import_onnx("Reading").numpy_helper.to_array(self.tensor)
        return array.ravel()


def packed_layers(model: Any, location: Location) -> list[CodedTensor]:
    """Find the weights of MatMulNBits nodes, in the order of the nodes."""
    return list(_Search(model, location).layers())


class _Search:
    def __init__(self, model: Any, location: Location) -> None:
        self._model = model
        self._location = location
        self._files = ExternalFiles(location)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def layers(self) -> Iterator[CodedTensor]:
        seen: set[str] = set()
        for node in messages(self._model):
            if node.DESCRIPTOR.name != "NodeProto" or node.op_type != PACKED:
                continue
            if len(node.input) > 2 and node.input[1] in self._tensors and node.input[1] not in seen:
                seen.add(node.input[1])
                yield self._layer(node)

    def _layer(self, node: Any) -> CodedTensor:
        name = str(node.input[1])
        said = {attribute.name: attribute.i for attribute in node.attribute}
        rows, columns, bits, group = (said.get(key, 0) for key in ("N", "K", "bits", "block_size"))
        what = f"{self._location}: the MatMulNBits of {quoted(name)}"
        if bits not in BIT_WIDTHS or min(rows, columns, group) < 1 or group * bits % 8:
            raise ValueError(
                f"{what} cannot be decoded: it has {bits} bits, {rows} rows, {columns} columns in "
                f"blocks of {group}"
            )
        if len(node.input) > 4 and node.input[4]:
            raise ValueError(f"{what} cannot be decoded: it has g_idx")
        groups = -(-columns // group)
        width = groups * group * bits // 8
        codes = self._data(name, (_UINT8,), (rows * width,), what)
        scales = self._data(node.input[2], (_FLOAT, _FLOAT16), (rows * groups,), what)
        zeros = None
        if len(node.input) > 3 and node.input[3]:
            packed = rows * -(-groups * bits // 8)
            kinds = (_UINT8, _FLOAT, _FLOAT16)
            zeros = self._data(node.input[3], kinds, (packed, rows * groups), what)
            wanted = packed if zeros.tensor.data_type == _UINT8 else rows * groups
            if product(zeros.tensor.dims) != wanted:
                raise ValueError(f"{what} has zero-points of another number than its blocks")
        return CodedTensor(
            _ADDED.sub("", name),
            "F32",
            (rows, columns),
            0,
            codes.bytes,
            f"{bits}-bit MatMulNBits",
            bits,
            scales.bytes + (0 if zeros is None else zeros.bytes),
            partial(_decode, (rows, columns), bits, group, codes, scales, zeros),
        )

    def _data(self, name: str, types: tuple[int, ...], counts: tuple[int, ...], what: str) -> _Data:
        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_type not in types or product(tensor.dims) not in counts:
            raise ValueError(f"{what} cannot be decoded: {quoted(name)} is not what it should be")
        return _Data(tensor, self._files.place(tensor, name) if is_external(tensor) else None)


def _decode(
    shape: tuple[int, int],
    bits: int,
    group: int,
    codes: _Data,
    scales: _Data,
    zeros: _Data | None,
) -> Floats:
    rows, columns = shape
    groups = -(-columns // group)
    rows_of_bytes = codes.read().reshape(rows, -1)[:, : -(-columns * bits // 8)]
    of_groups = scales.read().astype(np.float32).reshape(rows, groups)
    zero_points = np.full((rows, groups), 2 ** (bits - 1), np.float32)
    if zeros is not None and zeros.tensor.data_type == _UINT8:
        zero_points = unpacked(zeros.read().reshape(rows, -1), groups, bits)
    elif zeros is not None:
        zero_points = zeros.read().astype(np.float32).reshape(rows, groups)

    def decode(piece: slice) -> Floats:
        decoded = unpacked(rows_of_bytes[piece], columns, bits)
        decoded = decoded - np.repeat(zero_points[piece], group, axis=1)[:, :columns]
        decoded *= np.repeat(of_groups[piece], group, axis=1)[:, :columns]
        return decoded

    return in_pieces(rows, columns, decode)
