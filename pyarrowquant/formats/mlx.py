"""Folders that mlx and mlx-lm load: safetensors with packed layers."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.encodings import ENCODINGS as ENCODED
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.shapes import columns_of, product
from pyarrowquant.formats._conv1d import refuse_conv1d
from pyarrowquant.formats._either_name import by_either_name
from pyarrowquant.formats._experts import with_experts_apart
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._kept import left_out, with_codes_as
from pyarrowquant.formats._layers import KEPT_DTYPES, NAMED, refuse
from pyarrowquant.formats._mlx_apart import with_joined_apart
from pyarrowquant.formats._mlx_changed import FLOAT_HEAD, refuse_multiplied, scales_head
from pyarrowquant.formats._mlx_config import MlxSettings, quantization
from pyarrowquant.formats._mlx_file import file_of
from pyarrowquant.formats._mlx_folder import (
    MODEL,
    OTHER_DTYPES,
    import_safe_open,
    layers_of,
    write_config,
    write_folder,
)
from pyarrowquant.formats._mlx_joined import joined
from pyarrowquant.formats._mlx_known import warn_of_unknown
from pyarrowquant.formats._mlx_layers import (
    ENCODINGS,
    GROUPS,
    HOLDS,
    fits_encoded,
    planned_problem,
    settings_problem,
    tensor_names,
)
from pyarrowquant.formats._mlx_stacks import (
    ALTERNATING,
    FLOAT_EXPERTS,
    JOINED,
    has_stacks,
    joins_floats,
    settings_of_modules,
    stack_of,
)
from pyarrowquant.formats._model_folder import config_problem, kept_entry
from pyarrowquant.formats._model_type import model_type_problem
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._other_files import copy_files, other_files
from pyarrowquant.formats._outline import Outline
from pyarrowquant.formats._rules import NO_EXPERTS, NO_MATRIX, NO_WEIGHT, preceded
from pyarrowquant.formats._safetensors import RESERVED
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.gguf import GgufModel
from pyarrowquant.reading.location import given_folder
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import DTYPES, ShardedModel
from pyarrowquant.reading.tensors import CodedTensor, Tensor
from pyarrowquant.recipes.planned import PlannedLayer, PlannedLayout
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule

_NAMES = {code: name for name, code in DTYPES.items()}
# What mlx.core.load refuses, with the whole file.
_NOT_LOADED = {"F64", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
# mlx-lm takes these apart while loading, and quantizes the parts anew.
_PARTED = Rule(match="*.kv_b_proj.weight", skip=True, reason="which mlx-lm takes apart")
_WEIGHTS = (".weight", ".bias")
_LOADED = {*KEPT_DTYPES, *OTHER_DTYPES} - _NOT_LOADED


def write_mlx(
    results: Any,
    folder: str | os.PathLike[str],
    *,
    unquantized: Any = None,
    config: Mapping[str, Any] | None = None,
    dtype: str = "float16",
    overwrite: bool = False,
) -> None:
    """Write a folder that mlx and mlx-lm load: ``model.safetensors`` and ``config.json``.

    A layer ``P.weight`` becomes the tensors ``P.weight`` (uint32, the packed codes as they are),
    ``P.scales`` and ``P.biases``, where a bias is -zero_point * scale in float32, rounded to
    `dtype`; MLX decodes a code q to q * scale + bias. Scales of the encodings mxfp4, mxfp8 and
    nvfp4 are bytes, and there are no biases. Needs the extra ``pyarrowquant[mlx]``, not MLX itself.

    Streams are spooled to nameless temporary files in `folder`, since the header comes first: while
    writing, they take that room a second time, and memory holds one batch.

    Parameters
    ----------
    results : pyarrow.Table, RecordBatchReader or any Arrow producer
        What `quantize_batch_arrow` or `quantize_stream` gave. Layers are matrices of 2, 3, 4, 5,
        6 or 8 bits with a `group_size` of 32, 64 or 128 that divides the columns, and any kind of
        zero-points; or of the encodings mxfp4, mxfp8 and nvfp4, the columns a multiple of 32. MLX
        has no place for the scale that nvfp4 has for a whole layer: `pyarrowquant.convert`
        quantizes without it. Names end with ``.weight``. A stream is read batch by batch.
    folder : str or path
        Is made if it is not there. What else it holds stays, such as a tokenizer's files.
    unquantized : pyarrow.Table, RecordBatchReader or any Arrow producer, optional
        Layers that are not quantized, as for `quantize_batch_arrow`; raw bytes also of the other
        dtypes of safetensors. Their names and bytes go into the file as they are.
    config : mapping, optional
        The model's config.json. ``quantization`` is added, and the same as
        ``quantization_config``: the most frequent mode, group_size and bits, and those of every
        layer that differs.
    dtype : str
        Of scales and biases: "float16", "bfloat16" or "float32". Scales must be of this type
        exactly: quantize with the same `scale_dtype`.
    overwrite : bool
        Whether the two files may be replaced.

    Raises
    ------
    ValueError
        MLX cannot hold a layer; the text names all such layers (of a stream, of the first batch
        that has some), and says what MLX can hold. Or a row is corrupt, a name comes twice, or an
        argument is out of bounds. Nothing is left behind then.
    FileExistsError
        The folder has files of a model.
    ImportError
        The extra is not installed.

    Notes
    -----
    float32 `dtype` with float16 scales decodes to exactly what `dequantize_batch_arrow` gives.
    With float16 a bias is off by up to half a unit in its last place: 0.008 steps at 4 bits,
    0.14 at 8 bits. With bfloat16 these are 0.05 steps, and more than one.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> table = pyarrowquant.numpy_to_arrow_table({"up.weight": np.ones((64, 128), np.float32)})
    >>> result = pyarrowquant.quantize_batch_arrow(table, group_size=64, scale_dtype="float16")
    >>> pyarrowquant.formats.write_mlx(result, "folder-for-mlx", config={"model_type": "llama"})
    """
    place = given_folder("folder", folder)
    write_folder(
        results, place, unquantized, config, dtype, arguments.boolean("overwrite", overwrite)
    )


class Mlx(Format):
    """A folder for MLX; a model folder's configuration and tokenizer go with it."""

    name = "mlx"
    encodings = ENCODINGS
    unit_layer_scales = True
    # A float zero-point takes as much as another, and leaves less error.
    usual = Settings(method="mse", group_size=64, zero_point="float", scale_dtype="float16")
    group_sizes = (64, 32)
    most_unfit = 0.5  # which get smaller ones
    is_of_models = True
    engine = "mlx-lm"
    takes_rescaled = True
    copies_files = True
    kept = (JOINED, NO_EXPERTS, NO_MATRIX, NO_WEIGHT, _PARTED)
    short_groups = GROUPS
    reserved_names = RESERVED

    def is_folder(self, destination: Path) -> bool:
        return True

    def check_destination(self, destination: Path) -> None:
        import_safe_open()

    def defaults(self, model: Model) -> Settings:
        """Return settings with scales of the model's dtype, or MLX would compute in float32."""
        is_bfloat16 = model.weights_dtype == "BF16"
        return replace(self.usual, scale_dtype="bfloat16" if is_bfloat16 else "float16")

    def loading_problem(self, model: Model) -> str | None:
        if isinstance(model, GgufModel):
            return "mlx-lm takes config.json and the tokenizer of a Hugging Face folder. Give that"
        if model.folder is None:
            return config_problem(model)
        return model_type_problem(model) or self._lacking_weight(model)

    def _lacking_weight(self, model: Model) -> str | None:
        """Name a weight that the model would lack; buffers, which are computed, may be so."""
        for tensor in model.all_tensors:
            if tensor.name.endswith(_WEIGHTS) and (lacking := self.lacks(tensor)):
                return f"MLX has no {lacking}, which {quoted(tensor.name)} is. Store it as F32"
        return None

    def viewed(self, model: Model, pre_tokenizer: str | None) -> Model:
        """Return the model with single experts where mlx-lm has other stacks than transformers.

        So are stacks that MLX has made, as each matrix is read by itself.
        """
        model = with_joined_apart(super().viewed(model, pre_tokenizer))
        config = model.config or {}
        if not has_stacks(config):
            return model
        return with_experts_apart(model, alternating=config["model_type"] in ALTERNATING)

    def as_written(self, model: Model, names: Collection[str]) -> Model:
        view = self.viewed(model, None)
        return joined(view, view.config or {}) if isinstance(view, ShardedModel) else view

    def recipe(self, model: Model, recipe: Recipe | None, own: Recipe) -> Recipe | None:
        if recipe is not None:
            recipe = by_either_name(recipe, model)
        config = model.config or {}
        floats = [FLOAT_EXPERTS] if joins_floats(config) else []
        floats += [FLOAT_HEAD] if scales_head(config) else []
        return preceded(floats, super().recipe(model, recipe, own))

    def instead(self, settings: Settings, shape: Sequence[int]) -> Settings:
        """Return smaller groups for rows that are no whole ones."""
        if settings.encoding != INTEGER or settings.group_size not in GROUPS:
            return settings
        columns = columns_of(shape)
        fitting = [size for size in GROUPS if size <= settings.group_size and columns % size == 0]
        return replace(settings, group_size=max(fitting, default=settings.group_size))

    def settings_problem(self, settings: Settings) -> str | None:
        return settings_problem(settings)

    def one_scheme(self, name: str) -> str | None:
        return stack_of(name)

    def names_of(self, layer: Coded) -> Iterable[str]:
        return tensor_names(layer)

    def spools(self, model: Model) -> bool:
        return not self.outlines(model)

    def stored_bits(self, shape: Sequence[int], settings: Settings) -> int:
        """Return the bits of a layer, whose biases are like scales; none has a scale of its own."""
        if encoding := ENCODED.get(settings.encoding):
            return super().stored_bits(shape, settings) - encoding.layer_bits
        if settings.encoding == INTEGER:
            settings = replace(settings, zero_point="float")
        return super().stored_bits(shape, settings)

    def takes_shape(self, layer: PlannedLayer) -> bool:
        if layer.settings is not None and layer.settings.encoding != INTEGER:
            return 0 not in layer.shape and fits_encoded(layer.columns)
        return super().takes_shape(layer)

    def scale_dtype(self, model: Model, settings: Settings) -> str:
        """Return the dtype of scales that are floats of 16 or 32 bits."""
        if settings.encoding == INTEGER:
            return settings.scale_dtype
        return self.defaults(model).scale_dtype

    def lacks(self, tensor: Tensor) -> str | None:
        return None if tensor.dtype in _LOADED else tensor.dtype

    def keeps(self, tensor: Tensor, model: Model) -> bool:
        return model.is_read(tensor) and self.lacks(tensor) is None

    def kept_bytes(self, tensor: Tensor, model: Model) -> int:
        if isinstance(tensor, CodedTensor):
            return KEPT_DTYPES[_dtype_of(model)] * product(tensor.shape)
        return super().kept_bytes(tensor, model)

    def check_layouts(
        self,
        layers: Sequence[PlannedLayout],
        model: Model,
        scale_dtype: str,
    ) -> None:
        def problem(layer: PlannedLayout) -> str | None:
            return planned_problem(layer, scale_dtype)

        if model.folder is not None:
            said_in = model.folder.within(CONFIG)
            refuse_conv1d(
                model.config or {}, said_in, "mlx-lm transposes weights when it loads them"
            )
            refuse_multiplied(model)
            warn_of_unknown(model.config or {}, str(said_in))
        refuse(layers, problem, "MLX", HOLDS, ENCODINGS, NAMED)
        settings = {layer.name: MlxSettings.of(layer) for layer in layers}
        others = [each.name for each in model.all_tensors if each.name not in settings]
        quantization(settings_of_modules(settings, others, model.config or {}))

    def check_results(self, results: pa.Table, model: Model, scale_dtype: str) -> None:
        layers_of(results, scale_dtype)

    def outlines(self, model: Model) -> bool:
        return isinstance(model, ShardedModel) and model.folder is not None

    def outline(
        self,
        layers: Sequence[PlannedLayout],
        model: Model,
        settings: Settings,
        origin: Origin,
    ) -> Outline:
        source = model.folder
        assert isinstance(model, ShardedModel)
        assert source is not None
        by_name = {layer.name: layer for layer in layers}
        config = dict(model.config or {})
        dtype = _NAMES[_dtype_of(model)]
        kept = (
            kept_entry(shard, tensor, dtype)
            for shard in model.shards
            for tensor in shard.tensors
            if tensor.name not in by_name and self.keeps(tensor, model)
        )
        scale_dtype = self.scale_dtype(model, settings)
        file, said = file_of(MODEL, by_name, kept, scale_dtype, config, _metadata_of(model))

        def finish(folder: Path) -> None:
            write_config(folder / CONFIG, {**config, **said})
            copy_files(self.other_files(model), source, folder)

        return Outline([file], finish)

    def write(
        self,
        results: pa.Table,
        model: Model,
        destination: Path,
        settings: Settings,
        folder: bool,
    ) -> None:
        kept = left_out(with_codes_as(model, _dtype_of(model)), results, self)
        dtype = self.scale_dtype(model, settings)
        write_folder(results, destination, kept, model.config, dtype, metadata=_metadata_of(model))

    def other_files(self, model: Model) -> list[Path]:
        """List what goes along with a model folder."""
        if model.folder is None or not isinstance(model, ShardedModel):
            return []
        written = (MODEL, CONFIG)
        found = other_files(model.folder, model.shards)
        return [path for path in found if str(path) not in written]

    def copied_files(self, model: Model) -> Collection[Path]:
        return set(self.other_files(model))


def _metadata_of(model: Model) -> dict[str, str]:
    """Return what one file says of a model: what its files and its index do, the first of each key.

    A header has texts alone, so what else the index says is there as JSON.
    """
    if not isinstance(model, ShardedModel):
        return {}
    index = {} if model.index is None else model.index.metadata
    found = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in index.items()
    }
    for shard in reversed(model.shards):
        found.update(shard.metadata)
    return found


def _dtype_of(model: Model) -> str:
    """Return the dtype that a model is loaded with, as safetensors has it."""
    if model.folder is not None and isinstance(model, ShardedModel):
        return DTYPES.get(model.loaded_dtype, "F32")
    return model.weights_dtype or "F32"
