"""Folders that transformers loads: packed layers as compressed-tensors has them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.group_sizes import BLOCK, BLOCK_SIZE, groups_in_row
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.results import Packed
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.shapes import columns_of
from pyarrowquant.formats._compressed_config import (
    EXPERT,
    JOINED,
    check_stacks,
    mixed_problem,
    quantization_config,
)
from pyarrowquant.formats._compressed_files import outline_of, outline_of_results, words
from pyarrowquant.formats._compressed_floats import float_names
from pyarrowquant.formats._compressed_global import own_scale
from pyarrowquant.formats._compressed_schemes import (
    ENCODINGS_HELD,
    SMALL_SCALES,
    group_problem,
    settings_problem,
)
from pyarrowquant.formats._compressed_warnings import warn_of_experts, warn_of_int8_experts
from pyarrowquant.formats._either_name import by_either_name
from pyarrowquant.formats._experts import ApartModel, with_experts_apart
from pyarrowquant.formats._folder_outline import write_folder
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._fused import joined_as, one_scheme
from pyarrowquant.formats._layers import (
    NAMED,
    Results,
    is_of,
    planned_scales_fit,
    refuse,
)
from pyarrowquant.formats._linear_layers import NO_LINEAR_LAYERS, linear_problem, model_dtype
from pyarrowquant.formats._model_folder import (
    ModelFolder,
    decoded_size,
    open_folder,
)
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import Outline
from pyarrowquant.formats._rules import NO_EXPERTS
from pyarrowquant.formats._safetensors import RESERVED
from pyarrowquant.reading.location import given_folder
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import CodedTensor, Tensor
from pyarrowquant.reading.turned import as_floats
from pyarrowquant.recipes.planned import PlannedLayer, PlannedLayout, layout_of
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.schemes import INT8_ACTIVATIONS, SCHEMES


def write_compressed_tensors(
    results: Any,
    folder: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    overwrite: bool = False,
) -> None:
    """Write a folder that `from_pretrained` of transformers loads, with compressed-tensors.

    Layers of whole numbers are "pack-quantized": ``P.weight`` becomes the tensors
    ``P.weight_packed`` (int32, the packed codes, each row padded to 32 bits), ``P.weight_scale``
    and ``P.weight_shape``; where zero-points are not symmetric, ``P.weight_zero_point`` too. Those
    of fp8 are "float-quantized" and those of mxfp8 "mxfp8-quantized": ``P.weight`` has the codes,
    ``P.weight_scale`` the scales. Those of mxfp4 and nvfp4 are "mxfp4-pack-quantized" and
    "nvfp4-pack-quantized": ``P.weight_packed`` has two codes in a byte, ``P.weight_scale`` the
    scales, and of nvfp4 ``P.weight_global_scale`` what divides them. All other tensors of the
    model are kept byte for byte. Neither transformers nor any extra is needed to write.

    The folder appears when it is complete: until then it has a hidden name beside its own. Memory
    does not grow with the model.

    Parameters
    ----------
    results : pyarrow.Table, RecordBatchReader or any Arrow producer
        What `quantize_batch_arrow` or `quantize_stream` gave for layers of the model, in any
        order. Layers are matrices with names that end with ``.weight``, of encoding int with
        integer or symmetric zero-points, fp8 with a group_size of -1, "tensor" or "block", mxfp8,
        mxfp4 or nvfp4. Columns are a multiple of `group_size`, which may be -1. Scales of int and
        fp8 are of the model's dtype: quantize with that `scale_dtype`. Layers of different
        bits or groups must have symmetric zero-points. A stream is first written to a nameless
        temporary file, which takes the room of the result once more.
    folder : str or path
        Is made; the folder that it lies in is there already.
    model : str or path
        The folder of the Hugging Face model that `results` come from, with config.json and
        safetensors. It is only read. Shards keep their names. Other files of the folder are
        copied (tokenizer, generation_config.json, Python code, ...), but for weights in other
        formats, hidden files, and subfolders that have weights.
    overwrite : bool
        Whether `folder` may be replaced. It must be the folder of a model, with config.json or
        safetensors, and have no files beside these, and no subfolders, that `model` has not.

    Raises
    ------
    ValueError
        The format cannot hold a layer, or the model does not have it; the text names all such
        layers (of a stream, of the first batch that has some), and says what the format can hold.
        Or transformers could not load the whole, the model is quantized already, a file of it is
        damaged, a row is corrupt, or `folder` is the model or has it inside. Nothing is left
        behind then.
    FileExistsError
        `folder` exists and may not be replaced.
    FileNotFoundError
        The model is not there, or has no config.json or no weights.

    Notes
    -----
    transformers decodes to what `dequantize_batch_arrow` gives, rounded to the model's dtype.
    Symmetric layers stay packed in memory until the first forward call, which decodes all for
    good; layers that are not symmetric are decoded while loading.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pyarrowquant
    >>> from safetensors.numpy import save_file
    >>> Path("llama").mkdir()
    >>> _ = Path("llama/config.json").write_text('{"model_type": "llama", "dtype": "float32"}')
    >>> weights = {"model.layers.0.mlp.up_proj.weight": np.ones((64, 128), np.float32)}
    >>> save_file(weights, "llama/model.safetensors")
    >>> result = pyarrowquant.quantize_batch_arrow(
    ...     pyarrowquant.read_weights("llama"), zero_point="symmetric"
    ... )
    >>> pyarrowquant.formats.write_compressed_tensors(result, "llama-4bit", model="llama")
    """
    overwrite = arguments.boolean("overwrite", overwrite)
    place = given_folder("folder", folder)
    source = open_folder(model)
    dtype = model_dtype(source)
    layers = layers_of(results, dtype, source)
    write_folder(
        layers,
        source,
        place,
        overwrite,
        lambda by_name: outline_of_results(by_name, source, dtype),
    )


def layers_of(results: Any, dtype: str, source: ModelFolder | None) -> Results:
    """Open results; a layer that the format cannot hold, or the source does not have, is an error.

    Parameters
    ----------
    results : pyarrow.Table or any Arrow producer
    dtype : str
        Of the model.
    source : ModelFolder or None
        None for rows that are not whole layers of a model.
    """
    return Results(
        results,
        "compressed-tensors",
        lambda layer: _problem(layer, source, dtype),
        _holds(dtype),
        ENCODINGS_HELD,
    )


def _holds(dtype: str) -> str:
    return (
        "compressed-tensors holds matrices of the model, named '<module>.weight', of 2, 3, 4, 5, 6 "
        "or 8 bits with group_size -1 or one that divides the columns, zero_point integer or "
        "symmetric, or of encoding fp8 with group_size -1, 'tensor' or 'block', mxfp8, mxfp4 or "
        f"nvfp4. Scales but of the last three are of the model's dtype, {dtype}. Quantize such "
        "layers with other settings, or leave them out of the results: the model's own are kept"
    )


class CompressedTensors(Format):
    """The folder of a Hugging Face model, with packed layers."""

    name = "compressed-tensors"
    encodings = ENCODINGS_HELD
    mixes = tuple(SCHEMES)
    usual = Settings(method="mse", zero_point="symmetric")
    group_sizes = (128, 64, 32)
    is_of_models = True
    loads_by_class = True
    takes_rescaled = True
    copies_files = True
    short_groups = ()
    reserved_names = RESERVED
    kept = (NO_EXPERTS, *NO_LINEAR_LAYERS)

    def is_folder(self, destination: Path) -> bool:
        return True

    def viewed(self, model: Model, pre_tokenizer: str | None) -> Model:
        """Return the model with single experts where transformers joins them while loading.

        Other stacks, which are kept, are those of a checkpoint of floats.
        """
        model = super().viewed(model, pre_tokenizer)
        is_joined = (model.config or {}).get("model_type") in JOINED
        return with_experts_apart(model) if is_joined else as_floats(model)

    def names_of(self, layer: Coded) -> Iterable[str]:
        if layer.encoding != INTEGER:
            return float_names(layer.name, layer.encoding)
        parts = ["packed", "scale", "shape"]
        if layer.zero_point != "symmetric":
            parts.append("zero_point")
        return [f"{layer.name}_{part}" for part in parts]

    def stored_bits(self, shape: Sequence[int], settings: Settings) -> int:
        """Return the bits of a layer, whose codes and zero-points are in words of 32 bits."""
        if settings.encoding != INTEGER:
            return super().stored_bits(shape, settings)
        rows, columns = shape[0], columns_of(shape)
        bits = settings.bit_width
        groups = groups_in_row(settings.group_size, columns)
        scale_bits = 32 if settings.scale_dtype == "float32" else 16
        zero_points = 0 if settings.zero_point == "symmetric" else 32 * words(rows * bits)
        return rows * 32 * words(columns * bits) + groups * (rows * scale_bits + zero_points)

    def scale_dtype(self, model: Model, settings: Settings) -> str:
        return model_dtype(ModelFolder(model))

    def kept_bytes(self, tensor: Tensor, model: Model) -> int:
        if isinstance(tensor, CodedTensor):
            return decoded_size(tensor, ModelFolder(model).dtype)
        return super().kept_bytes(tensor, model)

    def joined_as(self, name: str) -> str | None:
        return joined_as(name)

    def one_scheme(self, name: str) -> str | None:
        # transformers has one scheme for the experts of all blocks, vLLM for those of each
        return "experts" if EXPERT.search(name) else one_scheme(name)

    def takes_shape(self, layer: PlannedLayer) -> bool:
        """Also whether engines can join layers in blocks: only where they end with one."""
        if layer.settings is None or layer.settings.group_size != BLOCK:
            return super().takes_shape(layer)
        ends = [layer.columns] if joined_as(str(layer.name)) is None else layer.shape
        return 0 not in layer.shape and not any(size % BLOCK_SIZE for size in ends)

    def default_recipe(self, model: Model) -> Recipe:
        return Recipe.preset("text")  # which spares heads

    def as_written(self, model: Model, names: Collection[str]) -> Model:
        view = self.viewed(model, None)
        return view.apart_for(names) if isinstance(view, ApartModel) else view

    def recipe(self, model: Model, recipe: Recipe | None, own: Recipe) -> Recipe | None:
        if recipe is not None:
            recipe = by_either_name(recipe, model)
        return super().recipe(model, recipe, own)

    def settings_problem(self, settings: Settings) -> str | None:
        return settings_problem(settings)

    def mixed_problem(self, layers: Sequence[PlannedLayer], model: Model) -> str | None:
        coded = [layout for layer in layers if (layout := layout_of(layer))]
        return mixed_problem(coded, model.config or {})

    def check_layouts(
        self, layers: Sequence[PlannedLayout], model: Model, scale_dtype: str
    ) -> None:
        def problem(layer: PlannedLayout) -> str | None:
            fits = not _has_model_scales(layer) or planned_scales_fit(layer, scale_dtype)
            return _layout_problem(layer, None) or (None if fits else _other_dtype(scale_dtype))

        refuse(layers, problem, self.name, _holds(scale_dtype), self.encodings, NAMED)
        # With all of which its layers must fit together too.
        folder = _folder(model, [layer.name for layer in layers])
        check_stacks(folder.config, folder.tensors, folder.location, self.name)
        if layers:
            by_name = {layer.name: layer for layer in layers}
            quantization_config(by_name, folder.tensors, folder.config, folder.dtype)
            warn_of_experts(layers)

    def warn_of_mix(self, mix: str | None, layers: Sequence[PlannedLayer]) -> None:
        if mix == INT8_ACTIVATIONS:
            warn_of_int8_experts(layout for layer in layers if (layout := layout_of(layer)))

    def check_results(self, results: pa.Table, model: Model, scale_dtype: str) -> None:
        layers_of(results, scale_dtype, None)

    def outlines(self, model: Model) -> bool:
        return True

    def outline(
        self,
        layers: Sequence[PlannedLayout],
        model: Model,
        settings: Settings,
        origin: Origin,
    ) -> Outline:
        by_name = {layer.name: layer for layer in layers}
        source = _folder(model, by_name)
        int8 = origin.mix == INT8_ACTIVATIONS
        return outline_of(by_name, source, model_dtype(source), int8, own_scale)

    def copied_files(self, model: Model) -> Collection[Path]:
        return set(ModelFolder(model).other_files())


def _folder(model: Model, layers: Iterable[str]) -> ModelFolder:
    """Open a folder, with stacks of experts of which nothing is quantized as they are."""
    return ModelFolder(model.apart_for(layers) if isinstance(model, ApartModel) else model)


def _problem(layer: Packed, source: ModelFolder | None, dtype: str) -> str | None:
    if problem := _layout_problem(layer, source):
        return problem
    fits = not _has_model_scales(layer) or is_of(layer.scales, dtype)
    return None if fits else _other_dtype(dtype)


def _has_model_scales(layer: Coded) -> bool:
    """Whether scales are stored in the model's dtype."""
    return layer.encoding not in SMALL_SCALES


def _other_dtype(dtype: str) -> str:
    return f'its scales are not {dtype}: quantize with scale_dtype="{dtype}"'


def _layout_problem(layer: Coded, source: ModelFolder | None) -> str | None:
    return linear_problem(layer, source) or settings_problem(layer) or group_problem(layer)
