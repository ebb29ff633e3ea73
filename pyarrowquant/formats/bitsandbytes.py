"""Folders that transformers loads: layers in NF4 as bitsandbytes has them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.shapes import product
from pyarrowquant.formats._bitsandbytes_config import EXPERTS, kept_floats
from pyarrowquant.formats._bitsandbytes_files import (
    BLOCK,
    ENCODING,
    bits_of_scales,
    outline_of,
    tensor_names,
)
from pyarrowquant.formats._compressed_config import check_stacks
from pyarrowquant.formats._folder_outline import write_folder
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._layers import NAMED, Results, refuse
from pyarrowquant.formats._linear_layers import NO_LINEAR_LAYERS, linear_problem, model_dtype
from pyarrowquant.formats._model_folder import ModelFolder, decoded_size, open_folder
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import Outline
from pyarrowquant.formats._rules import NO_EXPERTS, preceded
from pyarrowquant.formats._safetensors import RESERVED
from pyarrowquant.reading.location import given_folder
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import CodedTensor, Tensor
from pyarrowquant.reading.turned import as_floats
from pyarrowquant.recipes.planned import PlannedLayout
from pyarrowquant.recipes.recipe import Recipe

_ENCODINGS = (ENCODING,)
_HOLDS = (
    "bitsandbytes holds matrices of the model, named '<module>.weight', of encoding nf4 with a "
    'multiple of 64 columns. Quantize such layers with encoding="nf4", or leave them out of the '
    "results: the model's own are kept"
)


def write_bitsandbytes(
    results: Any,
    folder: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    double: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a folder that `from_pretrained` of transformers loads, with bitsandbytes.

    A layer ``P.weight`` becomes the tensors ``P.weight`` (uint8, of two codes each),
    ``P.weight.absmax``, the scales of 64 weights each, ``P.weight.quant_map``, the 16 levels of
    NF4, and ``P.weight.quant_state.bitsandbytes__nf4``, which says the shape. All other tensors of
    the model are kept byte for byte. Neither transformers nor any extra is needed to write.

    The folder appears when it is complete: until then it has a hidden name beside its own. Memory
    does not grow with the model.

    Parameters
    ----------
    results : pyarrow.Table, RecordBatchReader or any Arrow producer
        What `quantize_batch_arrow` or `quantize_stream` gave for layers of the model, in any
        order: matrices of encoding nf4 with names that end with ``.weight`` and a multiple of 64
        columns. A stream is first written to a nameless temporary file, which takes the room of
        the result once more.
    folder : str or path
        Is made; the folder that it lies in is there already.
    model : str or path
        The folder of the Hugging Face model that `results` come from, as for
        `write_compressed_tensors`.
    double : bool
        Whether scales are stored as codes of 8 bits, with a scale for 256 of them each in
        ``P.weight.nested_absmax``: 4.13 bits a weight instead of 4.5, and scales that are off by
        up to 1 part in 100 or so.
    overwrite : bool
        Whether `folder` may be replaced. It must be the folder of a model, with config.json or
        safetensors, and have no files beside these, and no subfolders, that `model` has not.

    Raises
    ------
    ValueError
        The format cannot hold a layer, or the model does not have it; the text names all such
        layers (of a stream, of the first batch that has some), and says what the format can hold.
        Or the model is quantized already, a file of it is damaged, a row is corrupt, or `folder`
        is the model or has it inside. Nothing is left behind then.
    FileExistsError
        `folder` exists and may not be replaced.
    FileNotFoundError
        The model is not there, or has no config.json or no weights.

    Notes
    -----
    bitsandbytes decodes to what `dequantize_batch_arrow` gives, rounded to the model's dtype; with
    `double`, to what `read_weights` gives for the folder.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pyarrowquant
    >>> from safetensors.numpy import save_file
    >>> Path("for-bnb").mkdir()
    >>> _ = Path("for-bnb/config.json").write_text('{"model_type": "llama", "dtype": "float32"}')
    >>> weights = {"model.layers.0.mlp.up_proj.weight": np.ones((64, 128), np.float32)}
    >>> save_file(weights, "for-bnb/model.safetensors")
    >>> result = pyarrowquant.quantize_batch_arrow(
    ...     pyarrowquant.read_weights("for-bnb"), encoding="nf4"
    ... )
    >>> pyarrowquant.formats.write_bitsandbytes(result, "llama-nf4", model="for-bnb")
    """
    double = arguments.boolean("double", double)
    overwrite = arguments.boolean("overwrite", overwrite)
    place = given_folder("folder", folder)
    source = open_folder(model)
    dtype = _dtype_of(source)
    layers = _layers_of(results, source)
    write_folder(
        layers,
        source,
        place,
        overwrite,
        lambda by_name: outline_of(by_name, source, dtype, double),
    )


def _dtype_of(source: ModelFolder) -> str:
    """Return the dtype of the model, or raise where transformers loads none such."""
    check_stacks(source.config, source.tensors, source.location, Bitsandbytes.name)
    return model_dtype(source)


def _layers_of(results: Any, source: ModelFolder | None) -> Results:
    """Open results; a layer that bitsandbytes, or the source, does not have is an error."""
    return Results(
        results, "bitsandbytes", lambda layer: _layout_problem(layer, source), _HOLDS, _ENCODINGS
    )


def _layout_problem(layer: Coded, source: ModelFolder | None) -> str | None:
    if problem := linear_problem(layer, source):
        return problem
    floats = [] if source is None else kept_floats(source.config)
    for rule in floats:
        if rule.matches(layer.name, layer.shape):
            return f"it is one {rule.reason}"
    if layer.columns % BLOCK:
        return f"{layer.columns} columns are no multiple of {BLOCK}"
    return None


class Bitsandbytes(Format):
    """The folder of a Hugging Face model, with layers in NF4.

    Parameters
    ----------
    double : bool
        Whether scales become codes, too.
    """

    name = "bitsandbytes"
    encodings = _ENCODINGS
    usual = Settings(method="mse").with_overrides({"encoding": ENCODING})
    is_of_models = True
    loads_by_class = True
    copies_files = True
    short_groups = ()
    reserved_names = RESERVED
    kept = (NO_EXPERTS, EXPERTS, *NO_LINEAR_LAYERS)

    def __init__(self, double: bool = False) -> None:
        self.double = double

    def doubled(self) -> Bitsandbytes:
        return Bitsandbytes(double=True)

    def is_folder(self, destination: Path) -> bool:
        return True

    def viewed(self, model: Model, pre_tokenizer: str | None) -> Model:
        """Return the model with stacks of experts, which are kept, as in a checkpoint of floats."""
        return as_floats(super().viewed(model, pre_tokenizer))

    def names_of(self, layer: Coded) -> Iterable[str]:
        return tensor_names(layer.name, self.double)

    def stored_bits(self, shape: Sequence[int], settings: Settings) -> int:
        weights = product(shape)
        return 4 * weights + bits_of_scales(-(-weights // BLOCK), self.double)

    def kept_bytes(self, tensor: Tensor, model: Model) -> int:
        if isinstance(tensor, CodedTensor):
            return decoded_size(tensor, ModelFolder(model).dtype)
        return super().kept_bytes(tensor, model)

    def default_recipe(self, model: Model) -> Recipe:
        return Recipe.preset("text")  # which spares heads

    def recipe(self, model: Model, recipe: Recipe | None, own: Recipe) -> Recipe | None:
        found = super().recipe(model, recipe, own)
        return preceded(kept_floats(model.config or {}), found)

    def check_layouts(
        self, layers: Sequence[PlannedLayout], model: Model, scale_dtype: str
    ) -> None:
        _dtype_of(ModelFolder(model))
        refuse(
            layers,
            lambda layer: _layout_problem(layer, None),
            self.name,
            _HOLDS,
            self.encodings,
            NAMED,
        )

    def check_results(self, results: pa.Table, model: Model, scale_dtype: str) -> None:
        _layers_of(results, None)

    def outlines(self, model: Model) -> bool:
        return True

    def outline(
        self,
        layers: Sequence[PlannedLayout],
        model: Model,
        settings: Settings,
        origin: Origin,
    ) -> Outline:
        source = ModelFolder(model)
        by_name = {layer.name: layer for layer in layers}
        return outline_of(by_name, source, model_dtype(source), self.double)

    def copied_files(self, model: Model) -> Collection[Path]:
        return set(ModelFolder(model).other_files())
