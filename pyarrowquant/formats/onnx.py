"""ONNX models of MatMulNBits nodes, which ONNX Runtime multiplies without decoding them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.settings import Settings
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._layers import NAMED, Names, Results, refuse
from pyarrowquant.formats._onnx_data import data_files, data_of
from pyarrowquant.formats._onnx_graph import (
    dtype_problem,
    float16_problem,
    outline_of,
    planned_float16_problem,
    write_replaced,
)
from pyarrowquant.formats._onnx_nodes import (
    HOLDS,
    ExternalData,
    add_tensors,
    attributes,
    block_of,
    node_problem,
    settings_problem,
)
from pyarrowquant.formats._onnx_outputs import model_outputs, named_data, refuse_link
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import Outline
from pyarrowquant.formats._rules import NO_EXPERTS, NO_MATRIX
from pyarrowquant.reading.location import given_path, locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.onnx import OnnxModel
from pyarrowquant.reading.onnx_model import import_onnx
from pyarrowquant.reading.tensors import Tensor
from pyarrowquant.recipes.planned import PlannedLayer, PlannedLayout, layout_of

_OPSET = 17
_IR_VERSION = 8


def write_onnx(
    results: Any,
    path: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write an ONNX model whose layers are MatMulNBits nodes.

    With `model` it is that model: each MatMul, and each Gemm that is a plain product with an added
    bias, whose weight is a layer of `results` becomes a MatMulNBits node of the same name and
    output; a bias is added by a node of its own. Weights that nothing else uses are left out. All
    else stays: nodes, metadata, versions, and all other tensors byte for byte. Layers are those
    that ``read_weights(model)`` gives.

    Without `model`, a layer ``P`` of N rows and K columns becomes the node ``P``, which multiplies
    an input ``P.input`` (float32, of K columns) with the transposed matrix and gives ``P.output``
    (N columns). Nodes and initializers are meant to be put into a model's graph.

    In both, ``P`` is the initializers ``P.codes``, ``P.scales`` and, unless zero-points are
    symmetric, ``P.zero_points`` (with ``_`` at the end where the model has such a name). They lie
    in a file of external data beside the model, named ``<model>.<digits>.data`` with digits from
    its content; the two have to stay together. What lies in external files of `model` is copied
    into this one. Needs the extra ``pyarrowquant[onnx]``.

    A stream is spooled to a nameless temporary file first: memory holds one batch, and what the
    file `model` itself holds.

    Parameters
    ----------
    results : pyarrow.Table, RecordBatchReader or any Arrow producer
        What `quantize_batch_arrow` or `quantize_stream` gave. Layers are matrices of 2, 4 or 8
        bits with a `group_size` that is a power of two and at least 16, or -1; 8 bits have
        integer or symmetric zero-points. Any number of columns will do. A stream is read batch
        by batch. Weights of a float16 `model` are quantized with ``scale_dtype="float16"``.
    path : str or path
        The model's file.
    model : str or path, optional
        The ONNX model that the layers are from. It is not changed.
    overwrite : bool
        Whether the model may be replaced; the data of the one before is removed then. The files
        of `model` may not be replaced.

    Raises
    ------
    ValueError
        MatMulNBits or `model` cannot hold a layer; the text names all such layers (of a stream, of
        the first batch that has some), and says what they can hold. Or a row is corrupt, a name
        comes twice, or `model` is damaged. Nothing is left behind then.
    FileExistsError
        The file exists.
    FileNotFoundError
        `model` or a file of its data is missing.
    ImportError
        The extra is not installed.

    Notes
    -----
    Rows whose last group is shorter are padded to whole groups. A row of one group gets the next
    power of two as its block_size.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> table = pyarrowquant.numpy_to_arrow_table({"up.weight": np.ones((64, 128), np.float32)})
    >>> result = pyarrowquant.quantize_batch_arrow(table, group_size=32)
    >>> pyarrowquant.formats.write_onnx(result, "layers.onnx")
    """
    onnx = import_onnx("Writing")
    path = given_path("path", path)
    overwrite = arguments.boolean("overwrite", overwrite)
    if model is not None:
        location = locate(model, None)
        if not location.is_file():
            raise ValueError(f"{location} is a folder; give the name of the model's file")
        write_replaced(results, OnnxModel(location), path, overwrite)
        return
    opened = layers_of(results)
    with (
        model_outputs(path, overwrite) as target,
        LayersByName(opened, target.parent) as layers,
    ):
        _outline(onnx, layers).write(target, layers, layers.forget_pages)


def layers_of(results: Any) -> Results:
    """Open results; a layer that MatMulNBits cannot hold is an error."""
    return Results(results, "MatMulNBits", node_problem, HOLDS)


class Onnx(Format):
    """An ONNX model: the source with other nodes, or layers by themselves."""

    name = "onnx"
    engine = "ONNX Runtime"
    kept = (
        NO_EXPERTS,
        NO_MATRIX,
    )
    checks_kept_names = False  # which get other names where they have to

    def check_destination(self, destination: Path) -> None:
        import_onnx("Writing")
        refuse_link(destination)

    def loading_problem(self, model: Model) -> str | None:
        if isinstance(model, OnnxModel):
            return None
        return "what it computes is said by an ONNX model alone, such as optimum exports. Give that"

    def scale_dtype(self, model: Model, settings: Settings) -> str:
        """Return the model's: activations and scales have one type."""
        computed = model.computed_dtypes.values() if isinstance(model, OnnxModel) else ()
        return "float16" if "F16" in computed else "float32"

    def settings_problem(self, settings: Settings) -> str | None:
        return settings_problem(settings)

    def bit_widths(self, zero_point: str) -> Sequence[int]:
        return (2, 4) if zero_point == "float" else (2, 4, 8)

    def names_of(self, layer: Coded) -> Iterable[str]:
        parts = ("input", "output", "codes", "scales", "zero_points")
        return [f"{layer.name}.{part}" for part in parts]

    def stored_bits(self, shape: Sequence[int], settings: Settings) -> int:
        """Return the bits of a layer, whose last groups are whole ones."""
        planned = PlannedLayer("", tuple(shape), settings)
        layer = layout_of(planned)
        assert layer is not None
        block = block_of(layer)
        groups = -(-layer.columns // block)
        scale = 32 if settings.scale_dtype == "float32" else 16
        zero_points = {"integer": -(-groups * layer.bits // 8) * 8, "float": groups * scale}
        row = groups * (block * layer.bits + scale) + zero_points.get(settings.zero_point, 0)
        return shape[0] * row

    def keeps(self, tensor: Tensor, model: Model) -> bool:
        return isinstance(model, OnnxModel)

    def takes_shape(self, layer: PlannedLayer) -> bool:
        return layer.settings is None or 0 not in layer.shape

    def check_layouts(
        self,
        layers: Sequence[PlannedLayout],
        model: Model,
        scale_dtype: str,
    ) -> None:
        refuse(layers, node_problem, "MatMulNBits", HOLDS, most=NAMED)
        if isinstance(model, OnnxModel):
            for layer in layers:
                if problem := dtype_problem(model.computed_dtypes[layer.name]):
                    raise _not_held(layer.name, problem)
        if scale_dtype == "float16":
            for layer in layers:
                if problem := planned_float16_problem(layer):
                    raise _not_held(layer.name, problem)

    def check_results(self, results: pa.Table, model: Model, scale_dtype: str) -> None:
        for layer in layers_of(results):
            if scale_dtype == "float16" and (problem := float16_problem(layer)):
                raise _not_held(layer.name, problem)

    def outlines(self, model: Model) -> bool:
        return isinstance(model, OnnxModel)

    def outline(
        self,
        layers: Sequence[PlannedLayout],
        model: Model,
        settings: Settings,
        origin: Origin,
    ) -> Outline:
        assert isinstance(model, OnnxModel)
        return outline_of(model, {layer.name: layer for layer in layers})

    def write(
        self,
        results: pa.Table,
        model: Model,
        destination: Path,
        settings: Settings,
        folder: bool,
    ) -> None:
        write_onnx(results, destination)

    def replaced_data(self, destination: Path, sources: Collection[str]) -> set[str]:
        return data_of(destination, sources)

    def files(self, destination: Path) -> Iterable[Path]:
        return [destination, *data_files(destination)]


def _not_held(name: str, problem: str) -> ValueError:
    return ValueError(f"The model cannot hold layer {quoted(name)}: {problem}")


def _outline(onnx: Any, layers: Mapping[str, Coded]) -> Outline:
    """Return the outline of a model of nodes for layers."""
    graph = onnx.GraphProto(name="pyarrowquant")
    names = Names()
    data = ExternalData(onnx)

    def value(name: str, columns: int) -> Any:
        return onnx.helper.make_tensor_value_info(
            names.add(name), onnx.TensorProto.FLOAT, ["rows", columns]
        )

    for layer in layers.values():
        name = layer.name
        tensors = add_tensors(onnx, layer, data, graph.initializer, names.add)
        node = onnx.helper.make_node(
            "MatMulNBits",
            [f"{name}.input", *tensors],
            [f"{name}.output"],
            name=name,
            domain="com.microsoft",
            **attributes(layer),
        )
        graph.node.append(node)
        graph.input.append(value(f"{name}.input", layer.columns))
        graph.output.append(value(f"{name}.output", layer.shape[0]))
    opsets = [
        onnx.helper.make_opsetid("", _OPSET),
        onnx.helper.make_opsetid("com.microsoft", 1),
    ]
    file = data.file()

    def finish(target: Path) -> None:
        data.name(named_data(file.path(target), target))
        model = onnx.helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="pyarrowquant"
        )
        target.write_bytes(model.SerializeToString())

    return Outline([file], finish)
