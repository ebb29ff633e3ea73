"""Existing ONNX models, their weights replaced by quantized ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.file_names import is_same
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Packed
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._layers import Results, is_of, planned_scales_fit
from pyarrowquant.formats._onnx_nodes import (
    HOLDS,
    ExternalData,
    add_tensors,
    attributes,
    node_problem,
)
from pyarrowquant.formats._onnx_outputs import model_outputs, named_data
from pyarrowquant.formats._outline import KnownRegion, Outline
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.onnx import OnnxModel
from pyarrowquant.reading.onnx_model import (
    ExternalFiles,
    Place,
    buffer_bytes,
    external_tensors,
    import_onnx,
    messages,
)
from pyarrowquant.reading.onnx_weights import PASSING_ON, Weight, find_weights
from pyarrowquant.recipes.planned import PlannedLayout

_DOMAIN = "com.microsoft"
_BYTES_A_PIECE = 1 << 22
_SCALES = (
    "the model computes with float16, and its scales are not float16: quantize with "
    'scale_dtype="float16"'
)
_ZERO_POINTS = (
    "the model computes with float16, and its zero-points are not float16: quantize with "
    "zero_point integer or symmetric"
)


def write_replaced(results: Any, source: OnnxModel, path: Path, overwrite: bool) -> None:
    """Write a model with MatMulNBits nodes for the layers of `results`.

    The source's graph becomes the written one: nothing can be read from it afterwards.
    """
    import_onnx("Writing")
    location, model = source.location, source.proto
    weights = find_weights(model, location)
    files = ExternalFiles(location)
    places = [files.place(tensor, tensor.name) for tensor in external_tensors(model)]
    sources = {os.path.realpath(file) for file in _paths(location, places)}
    real = Path(os.path.realpath(path))
    if any(is_same(real, Path(source)) for source in sources):
        raise ValueError(f"'{path}' is a file of the source model: give another path")
    opened = Results(
        results,
        "The model",
        lambda layer: _problem(layer, weights.get(layer.name)),
        f"{HOLDS}. Layers must be those that read_weights gives for this model",
    )
    # The checker wants both files by their names, which they get in a folder of their own first.
    with (
        model_outputs(path, overwrite, sources) as target,
        LayersByName(opened, target.parent) as layers,
    ):
        outline_of(source, layers).write(target, layers, layers.forget_pages)


def outline_of(source: OnnxModel, layers: Mapping[str, Coded]) -> Outline:
    """Return the outline of a model with MatMulNBits nodes for layers.

    The source's graph becomes the written one in the end.
    """
    onnx = import_onnx("Writing")
    location, model = source.location, source.proto
    weights = find_weights(model, location)
    taken = _Taken(model, location)
    data = ExternalData(onnx)
    made = onnx.GraphProto()  # its initializers are the model's in the end
    inputs = {}
    for name, layer in layers.items():
        half = weights[name].computed_dtype == "F16"
        inputs[name] = add_tensors(onnx, layer, data, made.initializer, taken.unique, half)
    of_layers = data.file()

    def finish(target: Path) -> None:
        _replace(onnx, model, weights, layers, inputs, taken)
        _copy_external(model, ExternalFiles(location), data)
        data.file().extend(target, len(of_layers.regions))
        data.name(named_data(of_layers.path(target), target))
        model.graph.initializer.extend(made.initializer)
        target.write_bytes(model.SerializeToString())
        _check(onnx, target, location.path)

    return Outline([of_layers], finish)


def _paths(location: Location, places: list[Place]) -> Iterator[str]:
    yield location.path
    yield from (place.location.path for place in places)


def _problem(layer: Packed, weight: Weight | None) -> str | None:
    if weight is None:
        return "the model has no MatMul or Gemm with a constant of this name"
    if layer.shape != weight.shape:
        return f"shape {list(layer.shape)}, the model's is {list(weight.shape)}"
    if problem := dtype_problem(weight.computed_dtype):
        return problem
    half = weight.computed_dtype == "F16"
    return node_problem(layer) or (float16_problem(layer) if half else None)


def dtype_problem(dtype: str) -> str | None:
    """Say what keeps weights of a dtype from being multiplied by MatMulNBits."""
    if dtype in ("F32", "F16"):
        return None
    name = {"BF16": "bfloat16"}.get(dtype, dtype)
    return (
        f"the model computes with {name}, which MatMulNBits does not on the CPU; convert it to "
        "float32 or float16 before"
    )


def float16_problem(layer: Packed) -> str | None:
    """Say what keeps a layer out of a model that computes with float16."""
    if not is_of(layer.scales, "float16"):
        return _SCALES
    if layer.zero_point == "float" and not is_of(layer.zero_points, "float16"):
        return _ZERO_POINTS
    return None


def planned_float16_problem(layer: PlannedLayout) -> str | None:
    """As `float16_problem`, of a layer that will be quantized."""
    if not planned_scales_fit(layer, "float16"):
        return _SCALES
    return _ZERO_POINTS if layer.zero_point == "float" else None


def _replace(
    onnx: Any,
    model: Any,
    weights: Mapping[str, Weight],
    layers: Mapping[str, Coded],
    inputs: Mapping[str, list[str]],
    taken: _Taken,
) -> None:
    """Replace the nodes that use layers by products with the initializers of these."""
    inserted: list[tuple[Any, int, Any]] = []  # graph, index of the node before, node
    lost: set[str] = set()
    for layer in layers.values():
        for use in weights[layer.name].uses:
            node = use.graph.node[use.index]
            first, replaced, *more = node.input
            lost.add(replaced)
            _make_product(onnx, node, [first, *inputs[layer.name]], attributes(layer))
            if more and more[0]:  # the bias of a Gemm
                output = node.output[0]
                node.output[0] = taken.unique(f"{output}.product")
                name = taken.unique(f"{node.name or output}.bias")
                add = onnx.helper.make_node("Add", [node.output[0], more[0]], [output], name=name)
                inserted.append((use.graph, use.index, add))
    _insert(inserted)
    _remove_unused(model, lost)
    if layers and not any(opset.domain == _DOMAIN for opset in model.opset_import):
        model.opset_import.add(domain=_DOMAIN, version=1)


def _make_product(onnx: Any, node: Any, inputs: list[str], said: dict[str, int]) -> None:
    """Make a node MatMulNBits; its name, output and documentation stay."""
    node.op_type, node.domain = "MatMulNBits", _DOMAIN
    del node.input[:]
    node.input.extend(inputs)
    del node.attribute[:]
    node.attribute.extend(onnx.helper.make_attribute(key, value) for key, value in said.items())


class _Taken:
    """Names that the model has for values and nodes."""

    def __init__(self, model: Any, location: object) -> None:
        self._names: set[str] = set()
        for message in messages(model):
            kind = message.DESCRIPTOR.name
            if kind == "NodeProto":
                self._names.update([message.name, *message.input, *message.output])
            elif kind in ("TensorProto", "ValueInfoProto"):
                self._names.add(message.name)
        for name in self._names:
            if not isinstance(name, str):  # which protobuf does not check
                raise ValueError(f"{location}: the name {quoted(name)} is not UTF-8")

    def unique(self, name: str) -> str:
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name


def _insert(inserted: list[tuple[Any, int, Any]]) -> None:
    """Put nodes behind others, the last one first, so that places before it stay."""
    for graph, index, node in sorted(inserted, key=lambda item: item[1], reverse=True):
        graph.node.insert(index + 1, node)


def _remove_unused(model: Any, lost: set[str]) -> None:
    """Remove constants that nothing uses any more, and what passed them on."""
    graphs = [message for message in messages(model) if message.DESCRIPTOR.name == "GraphProto"]
    while True:
        uses = _uses(model)
        unused = {name for name in lost if not uses[name]}
        removed = False
        for graph in graphs:
            for index, node in reversed(list(enumerate(graph.node))):
                if node.op_type in ("Constant", *PASSING_ON) and unused.issuperset(node.output):
                    lost.update(node.input)
                    del graph.node[index]
                    removed = True
        if not removed:
            break
    for graph in graphs:
        for field in (graph.initializer, graph.value_info):
            for index, item in reversed(list(enumerate(field))):
                if item.name in unused:
                    del field[index]


def _uses(model: Any) -> Counter[str]:
    """How often each value is used, in whatever graph."""
    uses: Counter[str] = Counter()
    for message in messages(model):
        if message.DESCRIPTOR.name == "NodeProto":
            uses.update(message.input)
        elif message.DESCRIPTOR.name == "GraphProto":
            uses.update(value.name for value in message.output)
    return uses


def _copy_external(model: Any, files: ExternalFiles, data: ExternalData) -> None:
    """Copy the data of tensors that stay external; shared data once."""
    offsets: dict[tuple[str, int, int], int] = {}
    for tensor in list(external_tensors(model)):
        place = files.place(tensor, tensor.name)
        key = place.location.path, place.begin, place.size
        if key in offsets:
            data.refer(tensor, offsets[key], place.size)
        else:
            offsets[key] = data.append(tensor, KnownRegion(place.size, partial(_pieces, place)))


def _pieces(place: Place) -> Iterator[Bytes]:
    """Bytes of a file, some MiB at a time."""
    with place.location.open() as file:
        end = place.begin + place.size
        for begin in range(place.begin, end, _BYTES_A_PIECE):
            yield buffer_bytes(file.buffer(begin, min(_BYTES_A_PIECE, end - begin)))
            file.forget_pages()


def _check(onnx: Any, path: Path, source: str) -> None:
    """Check the model, unless the source is one that the checker does not take either."""

    def problem(of: str) -> str | None:
        try:
            onnx.checker.check_model(of)
        except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
            return " ".join(str(error).split())
        return None

    if (text := problem(str(path))) and not problem(source):
        raise ValueError(f"{source} does not give a valid ONNX model: {text}")
