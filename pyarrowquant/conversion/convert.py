"""Model files in, quantized files out: `quantize` of the command line as a call."""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from pyarrowquant._core import arguments
from pyarrowquant._core.settings import SettingOverrides
from pyarrowquant.conversion.destination import check_destination, format_of
from pyarrowquant.conversion.job import Job
from pyarrowquant.conversion.memory import batch_bytes
from pyarrowquant.conversion.planning import planned, with_ragged_kept
from pyarrowquant.conversion.progress import Meter, Step
from pyarrowquant.conversion.source import (
    convertible,
    decoded_from,
    files_of,
    is_local,
    local_path,
    source_bytes,
    weights_bytes,
)
from pyarrowquant.conversion.unquantized import UnquantizedTensor, unquantized
from pyarrowquant.conversion.work import is_complete, recover
from pyarrowquant.errors import UsageError, users_level
from pyarrowquant.formats._format import Format
from pyarrowquant.formats.registry import FORMATS, SUFFIXES
from pyarrowquant.formats.tables import TABLES
from pyarrowquant.reading.location import OpenFiles, locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model
from pyarrowquant.recipes.named import file_of, is_named, recipe_of
from pyarrowquant.recipes.planned import PlannedLayer
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.stream import quantize_stream

_Path = str | os.PathLike[str]
_MAX_MEMORY = 600_000_000


@dataclass(frozen=True)
class Conversion:
    """What `convert` has done.

    Attributes
    ----------
    destination : Path
    to : str
        The format.
    layers : int
        How many were quantized.
    skipped : tuple of str
        What is wrong with layers that were left out because of ``continue_on_error=True``.
    missed : tuple of str
        What was said of layers that miss the quality floor with the most bits that the format has.
    weights : int
        How many were quantized.
    bytes : int
        Size of all that was written.
    bits_per_weight : float or None
        Of codes, scales and zero-points in tables; None for other formats, which have others.
    relative_error : float
        ||w - w'|| / ||w|| over all layers that were quantized.
    seconds : float
    source_bytes : int or None
        Size of the source's files; None where they are not on this machine.
    unquantized : tuple of UnquantizedTensor
        All other tensors of the source, as far as it says them.
    decoded : dict of str to int
        How many layers were decoded first, by what the source has them as, such as "Q8_0".
        Errors are those against the decoded weights.
    """

    destination: Path
    to: str
    layers: int
    skipped: tuple[str, ...]
    missed: tuple[str, ...]
    weights: int
    bytes: int
    bits_per_weight: float | None
    relative_error: float
    seconds: float
    source_bytes: int | None
    unquantized: tuple[UnquantizedTensor, ...]
    decoded: dict[str, int]


@dataclass(frozen=True)
class ConversionPlan:
    """What `convert` would do.

    Attributes
    ----------
    destination : Path
    to : str
        The format.
    layers : tuple of PlannedLayer
        In the order of the source.
    unquantized : tuple of UnquantizedTensor
        All tensors of the source that would not be quantized, as far as it says them.
    decoded : dict of str to int
        How many layers would be decoded first, by what the source has them as.
    """

    destination: Path
    to: str
    layers: tuple[PlannedLayer, ...]
    unquantized: tuple[UnquantizedTensor, ...]
    decoded: dict[str, int]


def convert(
    source: _Path,
    destination: _Path,
    *,
    to: str | None = None,
    bit_width: int | None = None,
    group_size: int | None = None,
    method: str | None = None,
    zero_point: str | None = None,
    scale_dtype: str | None = None,
    recipe: Recipe | _Path | None = None,
    bits_per_weight: float | None = None,
    quality_floor: float | Mapping[str, float] | None = None,
    threads: int | None = None,
    max_memory: int = _MAX_MEMORY,
    continue_on_error: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[Step], object] | None = None,
) -> Conversion:
    """Quantize a model's weights, and write them to a file or folder for an engine.

    Whatever can be checked without reading weights is checked first. The destination gets its
    name only when it is complete, and is on the disk then. What an interrupted run has done stays
    in a hidden folder beside it.

    Parameters
    ----------
    source : str or path
        What `read_weights` takes: a safetensors file, a model folder, an ONNX or GGUF model,
        Parquet, Arrow or npz.
    destination : str or path
        A folder for compressed-tensors and mlx, and for parquet and arrow without a suffix, which
        then has a file for each file of the source.
    to : {"parquet", "arrow", "compressed-tensors", "mlx", "gguf", "onnx"}, optional
        The format; by default what the suffix of the destination says.
    bit_width : {2, 3, 4, 5, 6, 8}, optional
        Default 4.
    group_size : int, optional
        -1 for whole rows; default 128, 32 for gguf, the largest of 128, 64 and 32 (64 and 32 for
        mlx) that fits nearly all layers for compressed-tensors and mlx.
    method : {"rtn", "mse", "hqq"}, optional
        Default "mse".
    zero_point : {"integer", "float", "symmetric"}, optional
        Default "integer", "symmetric" for compressed-tensors and gguf, "float" for mlx.
    scale_dtype : {"float32", "float16", "bfloat16"}, optional
        Default float32, float16 for gguf, the model's dtype for compressed-tensors, and for mlx
        bfloat16 if that is the model's, else float16.
    recipe : Recipe, str or path, optional
        Or the path of a recipe's file, or the name of a preset ("text", "diffusion", "vision"),
        a profile ("edge", "local", "cloud") or both ("text-local"), or "all" for all that the
        format can quantize. Without one, vectors, norms, biases, embeddings of positions and
        token types, routers and the like are not quantized; compressed-tensors leaves out what
        the preset "text" does, and the embeddings and head of a GGUF model get 8 bits.
    bits_per_weight : float, optional
        A budget that the bit widths of layers are fitted to, as by `Recipe.fit`.
    quality_floor : float or mapping, optional
        As of `quantize_stream`.
    threads : int, optional
        Default: the CPUs of this process.
    max_memory : int
        Bound on memory beyond mapped files, in bytes.
    continue_on_error : bool
        Leave layers that cannot be quantized out, with a `SkippedLayerWarning` each.
    resume : bool
        Go on from what an interrupted run has done; the result has the same bytes as if nothing
        had happened.
    overwrite : bool
        Whether what is at the destination may be replaced. It is there until what is new is
        complete.
    progress : callable, optional
        Gets a `Step` after each batch.

    Returns
    -------
    Conversion

    Raises
    ------
    UsageError
        Arguments exclude each other, or the destination does not fit the format.
    ValueError
        A source, an argument or a layer does not fit what is to be done.
    QuantizationError
        Layers cannot be quantized.
    FileExistsError
        The destination exists.
    FileNotFoundError
        The source, a part of it, or the folder of the destination is missing.
    BlockingIOError
        Another run has the same destination.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> weights = np.random.default_rng(0).standard_normal((64, 256), dtype=np.float32)
    >>> np.savez("small.npz", up=weights)
    >>> done = pyarrowquant.convert("small.npz", "small.parquet", bit_width=8)
    >>> done.layers, done.weights, round(done.bits_per_weight, 2)
    (1, 16384, 8.5)
    """
    start = time.perf_counter()
    job = _job(
        source,
        destination,
        to,
        _said(bit_width, group_size, method, zero_point, scale_dtype),
        recipe,
        bits_per_weight,
        quality_floor,
        threads,
        max_memory,
        continue_on_error,
        overwrite,
        lambda place: recover(place) and resume,
    )
    totals = job.run(resume, progress)
    return Conversion(
        destination=Path(destination),
        to=job.target.name,
        layers=totals.layers,
        skipped=tuple(totals.skipped),
        missed=tuple(totals.missed),
        weights=totals.weights,
        bytes=_size(job.target.files(job.destination)),
        bits_per_weight=totals.bits_per_weight if job.target.name in TABLES.values() else None,
        relative_error=totals.relative_error,
        seconds=time.perf_counter() - start,
        source_bytes=source_bytes(job.source),
        unquantized=job.unquantized(job.recipe),
        decoded=decoded_from(job.source, planned(job.source, job.settings, job.recipe) or []),
    )


def plan(
    source: _Path,
    destination: _Path,
    *,
    to: str | None = None,
    bit_width: int | None = None,
    group_size: int | None = None,
    method: str | None = None,
    zero_point: str | None = None,
    scale_dtype: str | None = None,
    recipe: Recipe | _Path | None = None,
    bits_per_weight: float | None = None,
    quality_floor: float | Mapping[str, float] | None = None,
    threads: int | None = None,
    max_memory: int = _MAX_MEMORY,
    continue_on_error: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[Step], object] | None = None,
) -> ConversionPlan:
    """Check what `convert` checks before any work, and return what it would do; write nothing.

    Parameters are those of `convert`. Weights are read only where the source does not say its
    layers otherwise, or for `bits_per_weight`.

    Returns
    -------
    ConversionPlan

    Raises
    ------
    As `convert`.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> np.savez("small.npz", up=np.ones((64, 256), np.float32))
    >>> planned = pyarrowquant.plan("small.npz", "small.gguf")
    >>> planned.to, [(layer.name, layer.shape) for layer in planned.layers]
    ('gguf', [('up', (64, 256))])
    >>> planned.layers[0].settings.group_size
    32
    """
    job = _job(
        source,
        destination,
        to,
        _said(bit_width, group_size, method, zero_point, scale_dtype),
        recipe,
        bits_per_weight,
        quality_floor,
        threads,
        max_memory,
        continue_on_error,
        overwrite,
        lambda place: resume and is_complete(place),
    )
    fitted = job.fitted(Meter(weights_bytes(job.source), progress))
    layers = planned(job.source, job.settings, fitted, read=True) or []
    left = job.unquantized(job.recipe)
    decoded = decoded_from(job.source, layers)
    return ConversionPlan(job.destination, job.target.name, tuple(layers), left, decoded)


def _said(
    bit_width: int | None,
    group_size: int | None,
    method: str | None,
    zero_point: str | None,
    scale_dtype: str | None,
) -> SettingOverrides:
    """Return the settings that the caller has given."""
    given: SettingOverrides = {}
    if bit_width is not None:
        given["bit_width"] = arguments.integer("bit_width", bit_width)
    if group_size is not None:
        given["group_size"] = arguments.integer("group_size", group_size)
    if method is not None:
        given["method"] = arguments.text("method", method)
    if zero_point is not None:
        given["zero_point"] = arguments.text("zero_point", zero_point)
    if scale_dtype is not None:
        given["scale_dtype"] = arguments.text("scale_dtype", scale_dtype)
    return given


def _job(
    source_path: _Path,
    destination_path: _Path,
    to: str | None,
    said: SettingOverrides,
    recipe: Recipe | _Path | None,
    bits_per_weight: float | None,
    quality_floor: float | Mapping[str, float] | None,
    threads: int | None,
    max_memory: int,
    continue_on_error: bool,
    overwrite: bool,
    is_to_be_placed: Callable[[Path], bool],
) -> Job:
    """Check all that can be known before any work.

    Parameters
    ----------
    is_to_be_placed : callable
        Whether an interrupted run has left a complete output for a destination, which this run
        only has to give its place.
    """
    destination = Path(destination_path)
    kind = format_of(destination, to, SUFFIXES)
    if kind not in FORMATS:
        raise UsageError(f"to={kind!r} must be one of {', '.join(FORMATS)}")
    target = FORMATS[kind]
    folder = target.is_folder(destination)
    source = local_path(os.fspath(source_path))
    place = Path(os.path.realpath(destination))  # what is written lies where links lead
    model = open_model(replace(locate(source, None), files=OpenFiles()))
    files = [*files_of(model), *file_of(recipe)]
    if not is_to_be_placed(place):
        written = partial(target.files_of_subfolders, model)
        check_destination(destination, overwrite, folder, files, written)
    target.check_destination(destination)
    if target.copies_files and model.folder is not None and not is_local(model):
        raise ValueError(
            f"'{source}' lies elsewhere, and to={kind!r} takes all files of its folder along. "
            "Download the folder first"
        )
    model = convertible(model)
    settings = target.defaults(model).with_overrides(said)
    rules = target.recipe(model, _chosen(recipe, said, target))
    if bits_per_weight is not None and "bit_width" in said:
        raise UsageError("bit_width= and bits_per_weight= exclude each other")
    mixed = bits_per_weight is not None or quality_floor is not None
    if mixed and (problem := target.mixed_problem(settings)):
        raise UsageError(problem)
    # This checks schema and arguments.
    quantize_stream(model.reader(), **asdict(settings), recipe=rules, quality_floor=quality_floor)
    layers = planned(model, settings, rules) or []
    if "group_size" not in said and target.group_sizes:
        group_size = target.fitting_group_size(layers)
        if group_size != settings.group_size:
            settings = replace(settings, group_size=group_size)
            layers = planned(model, settings, rules) or []
    rules, ragged = with_ragged_kept(target, layers, rules)
    _warn_of_ragged(ragged, model, target)
    layers = planned(model, settings, rules) or []
    target.check_plan(layers, model, settings)
    _check_any(model, target, layers, rules)
    _warn_of_decoded(decoded_from(model, layers))
    return Job(
        model,
        files,
        place,
        target,
        folder,
        settings,
        rules,
        bits_per_weight,
        arguments.quality_floor(quality_floor),
        continue_on_error,
        threads,
        batch_bytes(max_memory),
        overwrite,
    )


def _chosen(recipe: Recipe | _Path | None, said: SettingOverrides, target: Format) -> Recipe | None:
    """Return the recipe, with what the caller says in place of its default.

    The group size of a profile gives way where the format has usual ones of its own.
    """
    chosen = recipe_of(recipe)
    if chosen is None or chosen.default.skip:
        return chosen
    default = {**chosen.default.said, **said}
    if is_named(recipe) and "group_size" not in said and target.group_sizes:
        default.pop("group_size", None)
    if default == chosen.default.said:
        return chosen
    return Recipe(chosen.rules, default, chosen.name)


def _check_any(
    model: Model, target: Format, layers: Sequence[PlannedLayer], recipe: Recipe | None
) -> None:
    """Raise where the model says its tensors, and none of them would be quantized."""
    if model.tensors is None or any(layer.settings is not None for layer in layers):
        return
    reasons = Counter(tensor.reason for tensor in unquantized(model, target, layers, recipe))
    told = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    raise ValueError(
        f"No layer would be quantized to {target.name}. '{model.location}' has "
        f"{len(model.tensors)} tensors: {told or 'none'}. recipe='all' leaves out only what the "
        "format cannot quantize"
    )


def _warn_of_ragged(names: Sequence[str], model: Model, target: Format) -> None:
    tensors = {tensor.name: tensor for tensor in model.tensors or ()}
    kept = [name for name in names if name in tensors and target.keeps(tensors[name], model)]
    lost = [name for name in names if name not in kept]
    for what, found in (("Kept", kept), ("Left out", lost)):
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            warnings.warn(
                f"{what}, as the format does not take their shape: {', '.join(found[:3])}{more}",
                UserWarning,
                stacklevel=users_level(),
            )


def _warn_of_decoded(decoded: Mapping[str, int]) -> None:
    if decoded:
        listed = ", ".join(f"{count} of {coding}" for coding, count in decoded.items())
        warnings.warn(
            f"Quantized already, and decoded first: {listed}. Errors are those against the decoded "
            "weights; quantize float weights where you have them",
            UserWarning,
            stacklevel=users_level(),
        )


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())
