"""Constant matrices that an ONNX model multiplies with, as layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.onnx_constants import coded_products, other_tensors
from pyarrowquant.reading.onnx_functions import with_products_inline
from pyarrowquant.reading.onnx_model import (
    MATMUL_TYPES,
    ExternalFiles,
    Place,
    buffer_bytes,
    embedded_bytes,
    external_tensors,
    import_onnx,
    is_external,
    load_model,
)
from pyarrowquant.reading.onnx_packed import PACKED, packed_layers
from pyarrowquant.reading.onnx_weights import MOST_PARTS, Weight, find_weights
from pyarrowquant.reading.tensors import (
    FLOATS,
    CodedTensor,
    Tensor,
    batch_of,
    check_some_left,
    decoded_batch,
    in_a_row,
    runs,
)

# Rows and columns that are transposed at a time, which fit into a processor's cache.
_TILE = 128

_NO_WEIGHT = "no constant matrices of a MatMul or Gemm"


@dataclass(frozen=True)
class Layer:
    """A weight, and where its data lies if not in the model."""

    weight: Weight
    place: Place | None


def open_proto(location: Location) -> Any:
    """Parse the file of a model; functions of products stand where they are called."""
    onnx = import_onnx("Reading")
    return with_products_inline(onnx, load_model(onnx, location), location, MOST_PARTS)


def layers_of(model: Any, location: Location) -> list[Layer]:
    """Find the weights of a model and where they lie; what is wrong with them is an error."""
    weights = list(find_weights(model, location).values())
    files = ExternalFiles(location)
    layers = []
    for weight in weights:
        place = files.place(weight.tensor, weight.name) if is_external(weight.tensor) else None
        if place is None:
            embedded_bytes(weight.tensor, weight.name, location)  # only to check it
        layers.append(Layer(weight, place))
    return layers


def selected(layers: Sequence[Layer], only_floats: bool, location: Location) -> list[Layer]:
    """Leave out layers that cannot be quantized, if that is wanted."""
    left = [layer for layer in layers if layer.weight.dtype in FLOATS or not only_floats]
    check_some_left(location, tensors_of(layers), tensors_of(left))
    return left


def read_batches(
    location: Location, layers: Sequence[Layer], batch_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Copy the weights of a batch into one buffer, transposed where they have to be."""
    by_name = {layer.weight.name: layer for layer in layers}
    for run in runs(tensors_of(layers), batch_bytes):
        yield batch_of(run, _data([by_name[tensor.name] for tensor in run], run, location))


def tensors_of(layers: Sequence[Layer]) -> list[Tensor]:
    """Layers as tensors of a file that has one after the other."""
    return in_a_row(
        [
            Tensor(
                layer.weight.name,
                layer.weight.dtype,
                layer.weight.shape,
                0,
                layer.weight.shape[0] * layer.weight.shape[1] * _dtype(layer.weight).itemsize,
            )
            for layer in layers
        ]
    )


def _dtype(weight: Weight) -> np.dtype[Any]:
    return np.dtype(MATMUL_TYPES[weight.tensor.data_type][3])


def _data(layers: Sequence[Layer], run: Sequence[Tensor], location: Location) -> pa.Buffer:
    first = layers[0]
    if len(layers) == 1 and first.place is not None and not first.weight.transposed:
        return first.place.read()
    data = np.empty(run[-1].end - run[0].begin, np.uint8)
    for layer, tensor in zip(layers, run, strict=True):
        into = data[tensor.begin - run[0].begin : tensor.end - run[0].begin]
        if layer.place is None:
            source = embedded_bytes(layer.weight.tensor, layer.weight.name, location)
        else:
            source = buffer_bytes(layer.place.read())
        if layer.weight.transposed:
            dtype, shape = _dtype(layer.weight), layer.weight.shape
            _transpose(source.view(dtype).reshape(shape[::-1]), into.view(dtype).reshape(shape))
        else:
            into[:] = source
    return pa.py_buffer(data)


def _transpose(source: npt.NDArray[Any], into: npt.NDArray[Any]) -> None:
    rows, columns = into.shape
    for row in range(0, rows, _TILE):
        for column in range(0, columns, _TILE):
            tile = source[column : column + _TILE, row : row + _TILE]
            into[row : row + _TILE, column : column + _TILE] = tile.T


class OnnxModel(Model):
    """An ONNX model: its layers are the constant matrices that it multiplies with.

    Attributes
    ----------
    proto : onnx.ModelProto
        Data of other files stays there.
    """

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self.proto: Any = open_proto(location)

    @cached_property
    def layers(self) -> Sequence[Layer]:
        """Those that are floats."""
        layers = layers_of(self.proto, self.location)
        if not layers and not self.packed:
            raise ValueError(
                f"{self.location}: no MatMul or Gemm multiplies by a constant matrix, so there is "
                "nothing to quantize. Matrices that are inputs of the graph too are not constant"
            )
        return layers

    @cached_property
    def packed(self) -> Sequence[CodedTensor]:
        """Those of MatMulNBits nodes."""
        return packed_layers(self.proto, self.location)

    @cached_property
    def tensors(self) -> Sequence[Tensor]:
        return in_a_row([*tensors_of(self.layers), *self.packed])

    @cached_property
    def computed_dtypes(self) -> dict[str, str]:
        """Safetensors names of the types that layers are multiplied as."""
        return {layer.weight.name: layer.weight.computed_dtype for layer in self.layers}

    def without_codes(self) -> OnnxModel:
        """Return the model without what is quantized."""
        left = copy(self)
        for made_of_them in ("tensors", "all_tensors", "weights_dtype"):
            left.__dict__.pop(made_of_them, None)
        left.__dict__["packed"] = []
        return left

    @cached_property
    def all_tensors(self) -> Sequence[Tensor]:
        names = {tensor.name for tensor in self.tensors}
        return in_a_row([*self.tensors, *other_tensors(self.proto, names, self.location)])

    def obstacle(self, tensor: Tensor) -> str | None:
        found = super().obstacle(tensor)
        return found if found or self.is_read(tensor) else _NO_WEIGHT

    def is_read(self, tensor: Tensor) -> bool:
        return tensor.begin < self.tensors[-1].end  # those that are not, follow the layers

    def _refuse_codes(self) -> None:
        coded = [node for node in coded_products(self.proto) if node.op_type != PACKED]
        if len(coded) > len(find_weights(self.proto, self.location)) + len(self.packed):
            kinds = Counter(node.op_type for node in coded)
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))
            raise ValueError(
                f"{self.location} is quantized already: it has {listed} nodes with codes, such as "
                f"{quoted(coded[0].name or coded[0].output[0])}. Give the model that it was made "
                "from, with float weights"
            )

    @cached_property
    def files(self) -> Sequence[Location]:
        files = ExternalFiles(self.location)
        places = (files.place(tensor, tensor.name) for tensor in external_tensors(self.proto))
        return [self.location, *{place.location.path: place.location for place in places}.values()]

    def layer_readers(self) -> Iterator[tuple[str | None, Callable[[], pa.RecordBatch]]]:
        for layer in selected(self.layers, True, self.location):
            yield layer.weight.name, partial(_read_one, self.location, layer)
        for tensor in self.packed:
            yield tensor.name, partial(decoded_batch, [tensor])

    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        layers = selected(self.layers, only_floats, self.location)
        floats = read_batches(self.location, layers, batch_bytes)
        return islice(chain(floats, map(decoded_batch, runs(self.packed, batch_bytes))), skip, None)


def _read_one(location: Location, layer: Layer) -> pa.RecordBatch:
    (batch,) = read_batches(location, [layer], batch_bytes=1)
    return batch
