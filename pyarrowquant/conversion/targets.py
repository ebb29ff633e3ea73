"""Formats that `quantize` writes: their defaults, and what they can hold."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from pyarrowquant import quantize_batch_arrow
from pyarrowquant._core.rows import layers as described
from pyarrowquant._core.settings import BIT_WIDTHS, Settings
from pyarrowquant._core.shapes import columns_of
from pyarrowquant.conversion.result_files import TABLES
from pyarrowquant.formats import _gguf_blocks, compressed_tensors, mlx, onnx
from pyarrowquant.formats._compressed_config import quantization_config
from pyarrowquant.formats._model_folder import ModelFolder
from pyarrowquant.formats._onnx_graph import float16_problem
from pyarrowquant.reading.model import GgufModel, Model, OnnxModel
from pyarrowquant.reading.tensors import FLOATS
from pyarrowquant.recipes.presets import NOT_LINEAR
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule

FORMATS = ("parquet", "arrow", "compressed-tensors", "mlx", "gguf", "onnx")
FOLDERS = ("compressed-tensors", "mlx")

_USUAL = Settings(method="mse")
_DEFAULTS = {
    "parquet": _USUAL,
    "arrow": _USUAL,
    "mlx": replace(_USUAL, group_size=64, scale_dtype="float16"),
    "gguf": replace(_USUAL, group_size=32, zero_point="symmetric", scale_dtype="float16"),
    "onnx": _USUAL,
    "compressed-tensors": replace(_USUAL, zero_point="symmetric"),
}

_NO_MATRIX = Rule(ndim=(0, 1, 3, 4, 5, 6), skip=True)
_NO_WEIGHT = Rule(regex=r"(?<!\.weight)$", skip=True)
# Layers that a format cannot quantize stay as they are.
_KEPT: dict[str, tuple[Rule, ...]] = {
    "mlx": (_NO_MATRIX, _NO_WEIGHT),
    "compressed-tensors": (_NO_MATRIX, _NO_WEIGHT, *NOT_LINEAR),
    "gguf": (_NO_MATRIX,),
    "onnx": (_NO_MATRIX,),
}
# Embeddings and heads in 8 bits; an error of a router sends a token to another expert.
_LLAMA_CPP = (
    Rule(("token_embd.weight", "output.weight"), bit_width=8, zero_point="symmetric"),
    Rule("*ffn_gate_inp*", skip=True),
)
_HELD_WIDTHS = {"gguf": (4, 5, 8), "onnx": (2, 4, 8)}  # of the others all
_NO_EIGHT_BITS = (("gguf", "integer"), ("gguf", "float"), ("onnx", "float"))
_SHORT_GROUPS = {"mlx": (32, 64, 128), "gguf": (32,)}  # groups of a row that they take

_STAND_INS_A_CALL = 64


@dataclass(frozen=True)
class PlannedLayer:
    """What becomes of a layer of the source.

    Attributes
    ----------
    name : str or None
        None where it cannot be read.
    shape : tuple of int
    settings : Settings or None
        None for a layer that is left out.
    """

    name: str | None
    shape: tuple[int, ...]
    settings: Settings | None

    @property
    def columns(self) -> int:
        return columns_of(self.shape)


def defaults(kind: str, source: Model) -> Settings:
    """Return the settings that engines take where the user says nothing else."""
    if kind in ("compressed-tensors", "onnx"):
        dtype = stored_dtype(kind, source, _DEFAULTS[kind])
        return replace(_DEFAULTS[kind], scale_dtype=dtype)
    return _DEFAULTS[kind]


def with_kept(kind: str, source: Model, rules: Recipe | None) -> Recipe | None:
    """Return the recipe, before it the rules for what the format cannot quantize.

    Without one, models for transformers get the preset that spares their heads, and those of
    llama.cpp a recipe that does so under its names.
    """
    if kind == "compressed-tensors" and rules is None:
        rules = Recipe.preset("text")
    if kind == "gguf" and isinstance(source, GgufModel) and rules is None:
        rules = Recipe(_LLAMA_CPP)
    return _preceded(_KEPT.get(kind, ()), rules)


def widths(kind: str, zero_point: str) -> list[int]:
    """Bit widths that a format can hold with zero-points of a kind."""
    held = _HELD_WIDTHS.get(kind, BIT_WIDTHS)
    no_eight = (kind, zero_point) in _NO_EIGHT_BITS
    return [width for width in held if not (no_eight and width == 8)]


def planned(
    source: Model, settings: Settings, rules: Recipe | None, read: bool = False
) -> list[PlannedLayer] | None:
    """List the layers of a source, and what becomes of them.

    Where the source does not tell them without being read, that is done if `read`; else None.
    """
    tensors = source.tensors
    found: Iterable[tuple[str | None, Sequence[int]]]
    if tensors is not None:
        found = [(tensor.name, tensor.shape) for tensor in tensors if tensor.dtype in FLOATS]
    elif read:
        found = (
            layer
            for batch in source.reader()
            for layer in described(pa.Table.from_batches([batch]))
        )
    else:
        return None
    return [_planned(name, shape, settings, rules) for name, shape in found]


def _planned(
    name: str | None, shape: Sequence[int], settings: Settings, rules: Recipe | None
) -> PlannedLayer:
    if rules is None or name is None or None in shape:
        return PlannedLayer(name, tuple(shape), settings)
    return PlannedLayer(name, tuple(shape), rules.applied(settings, name, shape))


def with_ragged_kept(
    kind: str, layers: Sequence[PlannedLayer], rules: Recipe | None
) -> tuple[Recipe | None, list[str]]:
    """Leave out layers that the format does not take for their shape.

    Returns
    -------
    Recipe or None
        With rules for such layers.
    list of str
        Their names.
    """
    names = [str(layer.name) for layer in layers if _is_ragged(kind, layer)]
    # One rule, which looks names up.
    first = [Rule([glob.escape(name) for name in names], skip=True)] if names else []
    return _preceded(first, rules), names


def _is_ragged(kind: str, layer: PlannedLayer) -> bool:
    """Whether it is for its shape that a format does not take a layer."""
    if kind in TABLES.values() or layer.settings is None:
        return False
    if 0 in layer.shape:
        return True
    group_size = layer.settings.group_size
    if kind == "onnx" or group_size == -1:
        return False
    if layer.columns < group_size:  # where a row is a group
        return layer.columns not in _SHORT_GROUPS.get(kind, (layer.columns,))
    return bool(layer.columns % group_size)


def _preceded(first: Sequence[Rule], rules: Recipe | None) -> Recipe | None:
    if not first:
        return rules
    if rules is None:
        return Recipe(first)
    return Recipe([*first, *rules.rules], default=rules.default, name=rules.name)


def stored_dtype(kind: str, source: Model, settings: Settings) -> str:
    """Return the dtype that a format stores scales in: the model's, or what the user wants."""
    if kind == "compressed-tensors":
        return compressed_tensors.model_dtype(ModelFolder(source))
    if kind == "onnx":  # where activations and scales have one type
        tensors = source.tensors if isinstance(source, OnnxModel) else []
        return "float16" if any(tensor.dtype == "F16" for tensor in tensors) else "float32"
    return settings.scale_dtype


def check(kind: str, results: pa.Table, dtype: str) -> None:
    """Raise where the format cannot hold a layer; scales are stored in this dtype."""
    if kind == "mlx":
        mlx.layers_of(results, dtype)
    elif kind == "gguf":
        _gguf_blocks.layers_of(results)
    elif kind == "onnx":
        for layer in onnx.layers_of(results):
            if dtype == "float16" and (problem := float16_problem(layer)):
                raise ValueError(f"The model cannot hold layer '{layer.name}': {problem}")
    elif kind == "compressed-tensors":
        compressed_tensors.layers_of(results, dtype, None)


def check_planned(kind: str, source: Model, settings: Settings, rules: Recipe | None) -> None:
    """Raise where the format cannot hold layers of these shapes with these settings.

    Of each layer one made-up row is quantized, which takes no time.
    """
    if kind in TABLES.values():  # which hold everything
        return
    layers = planned(source, settings, rules) or []
    wanted = [layer for layer in layers if layer.settings is not None]
    results = [
        quantize_batch_arrow(
            _stand_ins(wanted[start : start + _STAND_INS_A_CALL]), **asdict(settings), recipe=rules
        )
        for start in range(0, len(wanted), _STAND_INS_A_CALL)
    ]
    if not results:
        return
    table = pa.concat_tables(results)
    dtype = stored_dtype(kind, source, settings)
    if kind != "compressed-tensors":
        check(kind, table, dtype)
        return
    rows = compressed_tensors.layers_of(table, dtype, None)
    model = ModelFolder(source)  # with all of which its layers must fit together too
    quantization_config({row.name: row for row in rows}, model.tensors, model.config)


def _stand_ins(layers: Sequence[PlannedLayer]) -> pa.Table:
    """One row of each matrix; rules for names and numbers of columns match it as the layer."""
    rows = [layer for layer in layers if len(layer.shape) > 1 and layer.columns]
    ends = np.cumsum([0, *(layer.columns for layer in rows)])
    values = np.random.default_rng(0).standard_normal(ends[-1], np.float32)
    return pa.table(
        {
            "layer_name": pa.array([layer.name for layer in rows], pa.string()),
            "weights": pa.LargeListArray.from_arrays(ends, values),
            "shape": pa.array([[1, *layer.shape[1:]] for layer in rows], pa.list_(pa.int64())),
        }
    )
