"""Layers as MatMulNBits takes them, and files of external data for their tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyarrowquant._core import laying
from pyarrowquant._core.group_sizes import WHOLE_ROW, in_row
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.settings import Settings
from pyarrowquant.formats._outline import KnownRegion, OutlinedFile, Region, part_region

HOLDS = (
    "MatMulNBits holds matrices of 2, 4 or 8 bits with a group_size that is a power of two "
    "and at least 16, or -1; with 8 bits, zero_point integer or symmetric. Quantize such "
    "layers with other settings, or leave them out"
)

_BIT_WIDTHS = (2, 4, 8)
_LEAST_BLOCK = 16
_FRACTIONS = "8 bits with float zero-points"
# Where tensors begin in the file of data: large ones at pages, as memory maps want it.
_ALIGNMENT = 64
_LARGE, _LARGE_ALIGNMENT = 1 << 20, 1 << 16


def node_problem(layer: Coded) -> str | None:
    """Say what keeps a layer out of a MatMulNBits node."""
    if problem := layer.matrix_problem():
        return problem
    if layer.bits not in _BIT_WIDTHS:
        return f"{layer.bits} bits"
    if not _is_block(block_of(layer)):
        return f"group_size {layer.group_size}"
    return _FRACTIONS if layer.bits == 8 and layer.zero_point == "float" else None


def settings_problem(settings: Settings) -> str | None:
    """Say why no node has a layer of these settings, and what one has."""
    if settings.bit_width not in _BIT_WIDTHS:
        return f"{settings.bit_width} bits: quantize with bit_width=2, 4 or 8"
    size = in_row(settings.group_size)
    if size != WHOLE_ROW and not _is_block(size):
        return (
            f"group_size {settings.group_size}: quantize with group_size=32, another power of two "
            f"that is at least {_LEAST_BLOCK}, or -1"
        )
    if settings.bit_width == 8 and settings.zero_point == "float":
        return f'{_FRACTIONS}: quantize with zero_point="integer"'
    return None


def _is_block(columns: int) -> bool:
    return columns >= _LEAST_BLOCK and columns & (columns - 1) == 0


class ExternalData:
    """The places of the data of a model's tensors in a file beside it.

    Parameters
    ----------
    onnx : module
    """

    def __init__(self, onnx: Any) -> None:
        self._external = onnx.TensorProto.EXTERNAL
        self._locations: list[Any] = []  # entries of tensors, for the file's name
        self._size = 0
        self._regions: list[Region] = []

    def append(self, tensor: Any, region: Region) -> int:
        """Let a tensor refer to a region behind all others; returns its offset."""
        alignment = _LARGE_ALIGNMENT if region.size >= _LARGE else _ALIGNMENT
        gap = -self._size % alignment
        offset = self._size + gap
        self._regions += [KnownRegion(gap, lambda: [bytes(gap)]), region]
        self._size = offset + region.size
        self.refer(tensor, offset, region.size)
        return offset

    def refer(self, tensor: Any, offset: int, size: int) -> None:
        """Let a tensor refer to data that has its place."""
        tensor.data_location = self._external
        del tensor.external_data[:]
        self._locations.append(tensor.external_data.add(key="location"))
        for key, value in (("offset", offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))

    def file(self) -> OutlinedFile:
        """Return the file with what it has so far."""
        return OutlinedFile("data", b"", list(self._regions), is_beside=True)

    def name(self, name: str) -> None:
        """Let all tensors refer to the file by its name."""
        for location in self._locations:
            location.value = name


def add_tensors(
    onnx: Any,
    layer: Coded,
    data: ExternalData,
    initializers: Any,
    name: Callable[[str], str],
    half: bool = False,
) -> list[str]:
    """Add the initializers of a layer; returns their names, in the order of the node's inputs.

    Parameters
    ----------
    initializers : repeated field of TensorProto
    name : callable
        Gives the name of a tensor from what it would like to be named.
    half : bool
        Whether scales, and zero-points that are fractions, are float16.
    """
    uint8 = onnx.TensorProto.UINT8
    rows, groups = layer.shape[0], laying.groups_of(layer)
    width = block_of(layer) * layer.bits // 8
    dtype = "float16" if half else "float32"
    floats = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT

    def add(suffix: str, type_: int, shape: tuple[int, ...], part: laying.Part) -> str:
        made = initializers.add(name=name(f"{layer.name}.{suffix}"), data_type=type_, dims=shape)
        data.append(made, part_region(layer, part))
        return str(made.name)

    names = [
        add("codes", uint8, (rows, groups, width), laying.codes(groups * width)),
        add("scales", floats, (rows, groups), laying.scales(layer, dtype)),
    ]
    if layer.zero_point == "integer":
        packed = laying.packed_zero_points(layer)
        names.append(add("zero_points", uint8, (rows, packed.row_bytes), packed))
    elif layer.zero_point == "float":
        zero_points = laying.zero_points(layer, dtype)
        names.append(add("zero_points", floats, (rows, groups), zero_points))
    return names  # symmetric is what the node takes without zero-points


def attributes(layer: Coded) -> dict[str, int]:
    """Attributes of the node."""
    rows, columns = layer.shape
    return {"K": columns, "N": rows, "bits": layer.bits, "block_size": block_of(layer)}


def block_of(layer: Coded) -> int:
    """Columns of a block; one block a row may be larger than the row."""
    if layer.group < layer.columns:
        return layer.group
    return max(_LEAST_BLOCK, 1 << (layer.columns - 1).bit_length())
