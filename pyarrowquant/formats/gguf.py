"""GGUF files, whose tensors ggml reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.settings import Settings
from pyarrowquant.formats._either_name import by_either_name
from pyarrowquant.formats._gguf_blocks import (
    ENCODED,
    ENCODINGS,
    as_matrix,
    check_layouts,
    columns_of_block,
    layers_of,
    settings_problem,
)
from pyarrowquant.formats._gguf_budget import error_weights, types_for
from pyarrowquant.formats._gguf_contradictions import contradiction
from pyarrowquant.formats._gguf_file import write_tensors
from pyarrowquant.formats._gguf_finite import check_finite
from pyarrowquant.formats._gguf_layout import header_bytes, padded
from pyarrowquant.formats._gguf_metadata import checked_architecture, metadata_entries
from pyarrowquant.formats._gguf_mixes import DEFAULT_MIX, INSTEAD, MIXES, mix_of
from pyarrowquant.formats._gguf_model import (
    alignment_of,
    file_type_of,
    keys_of,
    outline_of,
    write_requantized,
)
from pyarrowquant.formats._gguf_mxfp4 import Mxfp4Stack
from pyarrowquant.formats._gguf_traits import traits_of
from pyarrowquant.formats._kept import left_out
from pyarrowquant.formats._layers import KEPT_DTYPES, Kept, KeptLayers
from pyarrowquant.formats._mlx_stacks import refuse_switched
from pyarrowquant.formats._model_folder import config_problem
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outline import Outline
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.formats._rules import NO_STACK
from pyarrowquant.formats._sized_format import KeptTensor, SizedFormat
from pyarrowquant.llama_cpp.folder import FolderModel
from pyarrowquant.llama_cpp.models import LlamaCppModel
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.gguf import GgufModel, import_gguf
from pyarrowquant.reading.gguf_header import DEFAULT_ALIGNMENT
from pyarrowquant.reading.gguf_keys import number_key, text_key
from pyarrowquant.reading.location import given_path, locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.tensors import Tensor
from pyarrowquant.recipes.planned import PlannedLayer, PlannedLayout
from pyarrowquant.recipes.presets import SENSITIVE
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule

_MOST_DIMENSIONS = 4
_UNKNOWN = "unknown"  # an architecture
OTHER_DTYPES = {"F64": 8, "I8": 1, "I16": 2, "I32": 4, "I64": 8}  # named like those of ggml
# Embeddings and heads in 8 bits.
_LLAMA_CPP = (
    Rule(
        ("token_embd.weight", "output.weight"),
        bit_width=8,
        group_size=32,
        zero_point="symmetric",
        scale_dtype="float16",
        encoding=INTEGER,
    ),
)


def write_gguf(
    results: Any,
    path: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    unquantized: Any = None,
    architecture: str = _UNKNOWN,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a GGUF file of the layers, under their own names.

    Codes and scales are those of `results`, in blocks of 32:

    | bits | zero-points | type | decodes to          |
    | ---- | ----------- | ---- | ------------------- |
    | 4    | symmetric   | Q4_0 | `(q - 8) * scale`   |
    | 4    | other       | Q4_1 | `q * scale + m`     |
    | 5    | symmetric   | Q5_0 | `(q - 16) * scale`  |
    | 5    | other       | Q5_1 | `q * scale + m`     |
    | 8    | symmetric   | Q8_0 | `(q - 128) * scale` |

    Other encodings are the types of their names: q2_k to q6_k, iq4_nl, iq4_xs and mxfp4. K-quants
    and iq4_xs need a number of columns that 256 divides.

    m is -zero_point * scale in float32, rounded to float16. The other types decode to exactly
    what `dequantize_batch_arrow` gives. Needs the extra ``pyarrowquant[gguf]``.

    gguf reads any such file. llama.cpp also wants names and metadata of an architecture that it
    knows, and for ``llama`` another order of the rows of some layers; nothing is renamed or
    reordered here.

    Data is spooled to a nameless temporary file in the folder of `path`, since the header comes
    first: while writing, the folder takes twice the room of the result, and memory holds one
    batch.

    Parameters
    ----------
    results : pyarrow.Table, RecordBatchReader or any Arrow producer
        What `quantize_batch_arrow` or `quantize_stream` gave. Layers are matrices of a number of
        columns that 32 divides, quantized with ``group_size=32`` and ``scale_dtype="float16"``, or
        with an encoding.
        Whether zero-points are symmetric is found from their values. A stream is read batch by
        batch.
    path : str or path
        The file.
    model : str or path, optional
        A GGUF model, of which `results` are layers: all else, tensors and metadata, is taken from
        it, so that the file runs where that one does. For what llama.cpp converted to F16, BF16
        or F32. It is only read.
    unquantized : pyarrow.Table, RecordBatchReader or any Arrow producer, optional
        Layers that are not quantized, as for `quantize_batch_arrow`, and raw bytes of F64, I8,
        I16, I32 and I64; of up to four dimensions. Their names and bytes go into the file as they
        are.
    architecture : str
        ``general.architecture`` of the file.
    metadata : mapping, optional
        Keys, and values that are bool, int, float, str, or a list of one of these. An int is
        stored as uint32 if it fits, else as int32, uint64 or int64; in a list as int32 or int64.
        A float is stored as float32.
    overwrite : bool
        Whether the file may be replaced.

    Raises
    ------
    ValueError
        GGUF cannot hold a layer; the text names all such layers (of a stream, of the first batch
        that has some), and says what GGUF can hold. Or a row is corrupt, a name comes twice, or an
        argument is out of bounds. Nothing is left behind then.
    FileExistsError
        The file exists.
    ImportError
        The extra is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> table = pyarrowquant.numpy_to_arrow_table({"up.weight": np.ones((64, 128), np.float32)})
    >>> result = pyarrowquant.quantize_batch_arrow(
    ...     table, group_size=32, zero_point="symmetric", scale_dtype="float16"
    ... )
    >>> pyarrowquant.formats.write_gguf(result, "tensors.gguf")
    """
    gguf = import_gguf("Writing")
    path = given_path("path", path)
    overwrite = arguments.boolean("overwrite", overwrite)
    if model is not None:
        if unquantized is not None or metadata is not None or architecture != _UNKNOWN:
            raise ValueError(
                "unquantized, architecture and metadata come from model: give only that"
            )
        write_requantized(results, GgufModel(locate(model, None)), path, overwrite)
        return
    architecture = checked_architecture(architecture)
    values = metadata_entries(gguf, metadata)
    layers = layers_of(results)
    kept_layers = KeptLayers(unquantized, _kept_problem, OTHER_DTYPES)
    with Outputs([path], overwrite) as outputs:
        writer = gguf.GGUFWriter(outputs.temporary(path), architecture)
        try:
            for key, value, types in values:
                writer.add_key_value(key, value, *types)
            write_tensors(gguf, writer, layers, kept_layers, path.parent)
        finally:
            writer.close()


class Gguf(SizedFormat):
    """A GGUF file: the source with other tensors, or tensors by themselves."""

    name = "gguf"
    is_of_models = True
    knows_architectures = True
    engine = "llama.cpp"
    takes_rescaled = True
    has_float32_norms = True
    usual = Settings(method="mse", group_size=32, zero_point="symmetric", scale_dtype="float16")
    group_sizes = (32,)
    kept = (NO_STACK,)
    encodings = ENCODINGS
    short_groups = (32,)
    splits = True
    mixes = tuple(MIXES)
    longest_name = 63  # GGML_MAX_NAME, with the zero at its end

    def check_destination(self, destination: Path) -> None:
        import_gguf("Writing")

    def loading_problem(self, model: Model) -> str | None:
        if isinstance(model, GgufModel):
            if model.header.value("general.architecture") == _UNKNOWN:
                return "it names no architecture"
            problem = contradiction(model)
            return f"{problem}. Make it again" if problem else None
        if isinstance(model, LlamaCppModel):
            return None
        if model.folder is None:
            return config_problem(model)
        return (
            f"'{model.folder.within(CONFIG)}' names no class of models (architectures), such as "
            '["LlamaForCausalLM"]. Say it there'
        )

    def viewed(self, model: Model, pre_tokenizer: str | None) -> Model:
        config = model.config or {}
        if isinstance(model, ShardedModel) and config.get("architectures") is not None:
            # Much is to be known of architectures and tokenizers, which other sources need not.
            from pyarrowquant.llama_cpp.converting import convert_folder

            refuse_switched(model, self.engine)
            return convert_folder(model, pre_tokenizer)
        return super().viewed(model, pre_tokenizer)

    def check_kept(self, model: Model, quantized: Collection[str | None]) -> None:
        if isinstance(model, LlamaCppModel):
            check_finite(model, quantized)

    def default_recipe(self, model: Model) -> Recipe:
        more = _LLAMA_CPP if isinstance(model, LlamaCppModel) else ()
        return Recipe((*more, *SENSITIVE))

    def budget_recipe(self, model: Model) -> Recipe:
        return Recipe(SENSITIVE)  # the budget chooses types, of embeddings and heads too

    def recipe(self, model: Model, recipe: Recipe | None, own: Recipe) -> Recipe | None:
        if recipe is not None and isinstance(model, FolderModel):
            recipe = by_either_name(recipe, model)
        return super().recipe(model, recipe, own)

    def default_mix(self, model: Model) -> str | None:
        return None if traits_of(model) is None else DEFAULT_MIX

    def mix(self, name: str, model: Model, has_importance: bool) -> Recipe:
        traits = traits_of(model)
        if traits is None:
            raise ValueError(
                f"{model.location}: recipe {name!r} goes by llama.cpp's names of tensors, and is "
                "for GGUF models and Hugging Face folders. encoding= takes one of its types for "
                "all layers"
            )
        return mix_of(name, traits, has_importance)

    def takes_shape(self, layer: PlannedLayer) -> bool:
        settings = layer.settings
        if settings is None or settings.encoding not in ENCODED:
            return super().takes_shape(replace(layer, shape=as_matrix(layer.shape)))
        return 0 not in layer.shape and layer.shape[-1] % columns_of_block(settings.encoding) == 0

    def instead(self, settings: Settings, shape: Sequence[int]) -> Settings:
        """Return what llama.cpp takes where rows are no whole super-blocks."""
        other = INSTEAD.get(settings.encoding)
        if other is not None and shape[-1] % columns_of_block(settings.encoding):
            return replace(other, method=settings.method)
        return settings

    def settings_problem(self, settings: Settings) -> str | None:
        return settings_problem(settings)

    def bit_widths(self, zero_point: str) -> Sequence[int]:
        return (4, 5, 8) if zero_point == "symmetric" else (4, 5)

    def candidates(self, settings: Settings, shape: Sequence[int]) -> list[Settings]:
        """Return types of least error for their bits, unless a recipe says what they have not."""
        may_differ = {"bit_width": self.usual.bit_width, "method": self.usual.method}
        if {**vars(settings), **may_differ} != vars(self.usual) or settings.method == "hqq":
            return super().candidates(settings, shape)
        return types_for(replace(settings, bit_width=4), shape[-1])

    def error_weights(self, model: Model) -> Callable[[str, Sequence[int]], float]:
        return error_weights(model)

    def spools(self, model: Model) -> bool:
        return not self.outlines(model)

    def stored_bits(self, shape: Sequence[int], settings: Settings) -> int:
        """Return the bits of blocks, whose minimums are like scales."""
        if settings.encoding != INTEGER:
            return super().stored_bits(as_matrix(shape), settings)
        zero_point = "symmetric" if settings.zero_point == "symmetric" else "float"
        return super().stored_bits(as_matrix(shape), replace(settings, zero_point=zero_point))

    def lacks(self, tensor: Tensor) -> str | None:
        if 0 in tensor.shape:
            return "empty tensors"
        if len(tensor.shape) > _MOST_DIMENSIONS:
            return f"tensors of {len(tensor.shape)} dimensions"
        return None if tensor.dtype in {*KEPT_DTYPES, *OTHER_DTYPES} else tensor.dtype

    def keeps(self, tensor: Tensor, model: Model) -> bool:
        if isinstance(model, LlamaCppModel):
            return model.is_read(tensor)
        return model.is_read(tensor) and self.lacks(tensor) is None

    def kept_bytes(self, tensor: Tensor, model: Model) -> int:
        if isinstance(model, GgufModel):  # whose tensors are copied
            return tensor.stored_bytes
        if isinstance(model, FolderModel) and (stack := Mxfp4Stack.of(tensor)) is not None:
            return stack.nbytes
        return super().kept_bytes(tensor, model)

    def bytes_beside(
        self,
        model: Model,
        layers: Sequence[PlannedLayer],
        kept: Sequence[KeptTensor],
        origin: Origin,
    ) -> int:
        if isinstance(model, LlamaCppModel):
            keys = keys_of(model, 0, origin)  # any type, as each takes as much
        else:
            keys = [
                text_key("general.architecture", _UNKNOWN),
                number_key("general.quantization_version", 0),
            ]
        tensors = [(str(layer.name), layer.shape) for layer in layers]
        tensors += [(tensor.name, tensor.shape) for tensor in kept]
        alignment = self.alignment(model)
        sizes = (padded(tensor.kept_bytes, alignment) for tensor in kept)
        return header_bytes(keys, tensors, alignment) + sum(sizes)

    def alignment(self, model: Model) -> int:
        return alignment_of(model) if isinstance(model, LlamaCppModel) else DEFAULT_ALIGNMENT

    def check_layouts(
        self,
        layers: Sequence[PlannedLayout],
        model: Model,
        scale_dtype: str,
    ) -> None:
        check_layouts(layers)

    def check_results(self, results: pa.Table, model: Model, scale_dtype: str) -> None:
        layers_of(results, is_checked=True)

    def outlines(self, model: Model) -> bool:
        return isinstance(model, LlamaCppModel)

    def outline(
        self,
        layers: Sequence[PlannedLayout],
        model: Model,
        settings: Settings,
        origin: Origin,
    ) -> Outline:
        assert isinstance(model, LlamaCppModel)
        by_name = {layer.name: layer for layer in layers}
        return outline_of(model, model.stored, by_name, file_type_of(by_name, origin), origin)

    def write(
        self,
        results: pa.Table,
        model: Model,
        destination: Path,
        settings: Settings,
        folder: bool,
    ) -> None:
        write_gguf(results, destination, unquantized=left_out(model, results, self))


def _kept_problem(layer: Kept) -> str | None:
    if len(layer.shape) > _MOST_DIMENSIONS:
        return f"shape {list(layer.shape)} has more than four dimensions, the most in GGUF"
    if 0 in layer.shape:
        return f"shape {list(layer.shape)} has no weights"
    return None
