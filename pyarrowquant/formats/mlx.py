"""Folders that mlx and mlx-lm load: safetensors with affine codes."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core import arguments, laying
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.placing import refuse_irreplaceable
from pyarrowquant._core.results import Packed
from pyarrowquant._core.settings import Settings
from pyarrowquant.errors import ArgumentTypeError
from pyarrowquant.formats._format import NO_EXPERTS, NO_MATRIX, NO_WEIGHT, Format
from pyarrowquant.formats._kept import left_out
from pyarrowquant.formats._layers import (
    KEPT_DTYPES,
    KeptLayers,
    Names,
    Results,
    is_of,
    planned_scales_fit,
    refuse,
    rounded,
    widened,
)
from pyarrowquant.formats._model_folder import copy_files, other_files
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._outputs import OutputFolder, Outputs, Spool, clear_abandoned
from pyarrowquant.formats._safetensors import RESERVED, Entry, write_tensors
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.safetensors_header import BITS
from pyarrowquant.reading.tensors import Tensor
from pyarrowquant.recipes.planned import PlannedLayout

_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_NAMES = {code: name for name, code in _DTYPES.items()}
_GROUPS = (32, 64, 128)
_WEIGHT = ".weight"
_HOLDS = (
    "MLX holds matrices named '<module>.weight' of 2, 3, 4, 5, 6 or 8 bits with group_size 32, 64 "
    "or 128, the columns a multiple of it, and scales of the dtype of the call. Quantize such "
    "layers with other settings, or give them in kept"
)
_MODEL, _CONFIG = "model.safetensors", "config.json"
# What mlx.core.load refuses, with the whole file.
_NOT_LOADED = {"F64", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
# Of safetensors all whose elements are whole bytes.
_OTHER_DTYPES = {
    name: bits // 8 for name, bits in BITS.items() if bits % 8 == 0 and name not in KEPT_DTYPES
}


_LOADED = {*KEPT_DTYPES, *_OTHER_DTYPES} - _NOT_LOADED


def write_mlx(
    results: Any,
    folder: str | os.PathLike[str],
    *,
    kept: Any = None,
    config: Mapping[str, Any] | None = None,
    dtype: str = "float16",
    overwrite: bool = False,
) -> None:
    """Write a folder that mlx and mlx-lm load: ``model.safetensors`` and ``config.json``.

    A layer ``P.weight`` becomes the tensors ``P.weight`` (uint32, the packed codes as they are),
    ``P.scales`` and ``P.biases``, where a bias is -zero_point * scale in float32, rounded to
    `dtype`; MLX decodes a code q to q * scale + bias. Needs the extra ``pyarrowquant[mlx]``, not
    MLX itself.

    Data is spooled to nameless temporary files in `folder`, since the header comes first: while
    writing, the folder takes twice the room of the result, and memory holds one batch.

    Parameters
    ----------
    results : pyarrow.Table, RecordBatchReader or any Arrow producer
        What `quantize_batch_arrow` or `quantize_stream` gave. Layers are matrices of 2, 3, 4, 5,
        6 or 8 bits with a `group_size` of 32, 64 or 128 that divides the columns, and any kind of
        zero-points. Their names end with ``.weight``. A stream is read batch by batch.
    folder : str or path
        Is made if it is not there. What else it holds stays, such as a tokenizer's files.
    kept : pyarrow.Table, RecordBatchReader or any Arrow producer, optional
        Layers that are not quantized, as for `quantize_batch_arrow`; raw bytes also of the other
        dtypes of safetensors. Their names and bytes go into the file as they are.
    config : mapping, optional
        The model's config.json. ``quantization`` is added: the most frequent group_size and
        bits, and those of every layer that differs.
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
    safe_open = _safe_open()
    code = _DTYPES.get(arguments.text("dtype", dtype))
    if code is None:
        raise ValueError(f"Invalid dtype: {dtype!r}. Must be 'float16', 'bfloat16' or 'float32'")
    if config is not None and not isinstance(config, Mapping):
        raise ArgumentTypeError(
            f"config must be a mapping, got {type(config).__name__}: {config!r}"
        )
    layers = layers_of(results, dtype)
    kept_layers = KeptLayers(kept, others=_OTHER_DTYPES)
    config = {} if config is None else dict(config)
    json.dumps(config)  # what JSON does not know is found here, not at the end
    overwrite = arguments.boolean("overwrite", overwrite)
    folder = Path(folder)
    files = [folder / _MODEL, folder / _CONFIG]
    clear_abandoned(Path(os.path.realpath(files[-1])))
    for other in sorted(folder.glob("model*.safetensors")):
        if other != files[0]:
            raise FileExistsError(f"'{other}' exists. MLX would load it too: remove it")

    def write(model: Path, configuration: Path) -> None:
        quantization = _write_tensors(layers, kept_layers, model, code)
        with safe_open(model, "np"):
            pass  # the header is what safetensors takes
        text = json.dumps({**config, **quantization}, indent=2) + "\n"
        configuration.write_text(text, encoding="utf-8")

    if _is_replaced_whole(folder, overwrite):
        with OutputFolder(folder, overwrite) as output:
            write(output.temporary / _MODEL, output.temporary / _CONFIG)
            if not _is_replaced_whole(folder, overwrite):
                raise FileExistsError(f"'{folder}' has got files meanwhile. Write into it again")
    else:
        with Outputs(files, overwrite) as outputs:
            write(*map(outputs.temporary, files))


def _is_replaced_whole(folder: Path, overwrite: bool) -> bool:
    """Whether a folder is new, or may get its name as a whole as it has nothing else."""
    real = Path(os.path.realpath(folder))
    if not real.is_dir():
        return True
    if os.path.samefile(real, os.curdir):
        return False
    found = set(os.listdir(real))
    if found - {_MODEL, _CONFIG} or (found and not overwrite):
        return False
    try:
        refuse_irreplaceable(real)
    except ValueError:  # a mount point, in which files are replaced
        return False
    return os.access(real.parent, os.W_OK)


class Mlx(Format):
    """A folder for MLX; a model folder's configuration and tokenizer go with it."""

    name = "mlx"
    # A float zero-point takes as much as another, and leaves less error.
    usual = Settings(method="mse", group_size=64, zero_point="float", scale_dtype="float16")
    group_sizes = (64, 32)
    copies_files = True
    kept = (NO_EXPERTS, NO_MATRIX, NO_WEIGHT)
    short_groups = _GROUPS
    reserved_names = RESERVED

    def is_folder(self, destination: Path) -> bool:
        return True

    def check_destination(self, destination: Path) -> None:
        _safe_open()

    def defaults(self, model: Model) -> Settings:
        """Return settings with scales of the model's dtype, or MLX would compute in float32."""
        is_bfloat16 = model.weights_dtype == "BF16"
        return replace(self.usual, scale_dtype="bfloat16" if is_bfloat16 else "float16")

    def names_of(self, layer: Coded) -> Iterable[str]:
        module = layer.name.removesuffix(_WEIGHT)
        return [layer.name, f"{module}.scales", f"{module}.biases"]

    def spools(self, model: Model) -> bool:
        return True

    def stored_bits(self, shape: Sequence[int], settings: Settings) -> int:
        """Return the bits of a layer, whose biases are like scales."""
        return super().stored_bits(shape, replace(settings, zero_point="float"))

    def keeps(self, tensor: Tensor, model: Model) -> bool:
        return model.is_read(tensor) and _lacks(tensor.shape, tensor.dtype) is None

    def check_layouts(
        self,
        layers: Sequence[PlannedLayout],
        model: Model,
        scale_dtype: str,
    ) -> None:
        def problem(layer: PlannedLayout) -> str | None:
            fits = planned_scales_fit(layer, scale_dtype)
            return _layout_problem(layer) or (None if fits else _other_dtype(scale_dtype))

        refuse(layers, problem, "MLX", _HOLDS)
        modules = {layer.name.removesuffix(_WEIGHT): layer for layer in layers}
        _quantization({name: (each.group, each.bits) for name, each in modules.items()})

    def check_results(self, results: pa.Table, model: Model, scale_dtype: str) -> None:
        layers_of(results, scale_dtype)

    def write(
        self,
        results: pa.Table,
        model: Model,
        destination: Path,
        settings: Settings,
        folder: bool,
        origin: Origin,
    ) -> None:
        kept = left_out(model, results, _lacks)
        dtype = settings.scale_dtype
        write_mlx(results, destination, kept=kept, config=model.config, dtype=dtype)
        if model.folder is not None:
            copy_files(self.other_files(model), Path(model.folder.path), destination)

    def other_files(self, model: Model) -> list[Path]:
        """List what goes along with a model folder."""
        if model.folder is None or not isinstance(model, ShardedModel):
            return []
        written = (_MODEL, _CONFIG)
        found = other_files(Path(model.folder.path), model.shards)
        return [path for path in found if str(path) not in written]

    def copied_files(self, model: Model) -> Collection[Path]:
        return set(self.other_files(model))


def _lacks(_shape: Sequence[int], dtype: str) -> str | None:
    """Say what MLX does not load."""
    return None if dtype in _LOADED else dtype


def _safe_open() -> Any:
    try:
        from safetensors import safe_open
    except ImportError:
        raise ImportError(
            "Writing for MLX needs safetensors: pip install pyarrowquant[mlx]"
        ) from None
    return safe_open


def layers_of(results: Any, dtype: str) -> Results:
    """Open results; a layer that MLX cannot hold is an error."""
    return Results(results, "MLX", lambda layer: _problem(layer, dtype), _HOLDS)


def _problem(layer: Packed, dtype: str) -> str | None:
    if problem := _layout_problem(layer):
        return problem
    if not is_of(layer.scales, dtype):
        return _other_dtype(dtype)
    if not np.isfinite(widened(rounded(layer.biases, dtype))).all():
        return f"a bias is beyond {dtype}"
    return None


def _other_dtype(dtype: str) -> str:
    return f'its scales are not {dtype}: quantize with scale_dtype="{dtype}", or write others'


def _layout_problem(layer: Coded) -> str | None:
    if not layer.name.endswith(_WEIGHT) or layer.name == _WEIGHT:
        return "its name does not end with '.weight'"
    if problem := layer.matrix_problem():
        return problem
    if layer.group not in _GROUPS:
        return f"group_size {layer.group_size}"
    if layer.columns % layer.group:
        return f"{layer.columns} columns are no multiple of group_size {layer.group_size}"
    return None


def _write_tensors(
    layers: Results, kept: KeptLayers, path: Path, dtype: str
) -> dict[str, dict[str, Any]]:
    """Write the file of tensors; returns what config.json says of them."""
    names = Names()
    settings: dict[str, tuple[int, int]] = {}
    entries: list[Entry] = []
    with Spool(path.parent) as spool:

        def add(
            name: str, code: str, shape: tuple[int, ...], data: Iterable[npt.NDArray[Any]]
        ) -> None:
            start = spool.size
            for piece in data:
                spool.append(piece)
            size = spool.size - start
            pieces = partial(spool.pieces, start, size)
            entries.append(Entry(names.add(name), code, shape, size, pieces))

        for layer in layers:
            module = layer.name.removesuffix(_WEIGHT)
            settings[module] = layer.group, layer.bits
            rows, width = layer.codes.shape
            add(layer.name, "U32", (rows, width // 4), [layer.codes])
            for suffix, part in (("scales", laying.scales), ("biases", laying.biases)):
                stored = laying.pieces(layer, part(layer, _NAMES[dtype]))
                add(f"{module}.{suffix}", dtype, layer.scales.shape, stored)
        for layer_kept in kept:
            add(layer_kept.name, layer_kept.dtype, layer_kept.shape, [layer_kept.data])
        write_tensors(path, entries, "mlx")
    return _quantization(settings)


def _quantization(settings: dict[str, tuple[int, int]]) -> dict[str, dict[str, Any]]:
    if not settings:
        return {}
    ((usual, _),) = Counter(settings.values()).most_common(1)
    others = {
        module: {"group_size": setting[0], "bits": setting[1]}
        for module, setting in settings.items()
        if setting != usual
    }
    for module in others.keys() & {"group_size", "bits"}:
        raise ValueError(
            f"config.json has no place for the settings of layer '{module}{_WEIGHT}', as "
            f"'{module}' means another thing there. Give all layers the same settings"
        )
    return {"quantization": {"group_size": usual[0], "bits": usual[1], **others}}
