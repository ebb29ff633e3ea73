"""Model files in, quantized files out: `quantize` of the command line as a call."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pyarrowquant._core.keywords import with_meant
from pyarrowquant._core.quoting import first_few
from pyarrowquant.conversion.outcome import Conversion, ConversionPlan
from pyarrowquant.conversion.partial.interrupted import is_complete, recover
from pyarrowquant.conversion.planning import planned
from pyarrowquant.conversion.preparing import prepare
from pyarrowquant.conversion.progress import Meter, Step
from pyarrowquant.conversion.request import Request
from pyarrowquant.conversion.source import decoded_from, source_bytes, weights_bytes
from pyarrowquant.conversion.stores.landing import landing
from pyarrowquant.conversion.tensors import converted
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.conversion.unquantized import UnquantizedTensor
from pyarrowquant.errors import users_level
from pyarrowquant.formats._watching import warn_of_kept
from pyarrowquant.recipes.recipe import GivenRecipe
from pyarrowquant.tables import skipped_text

_Path = str | os.PathLike[str]
_MAX_MEMORY = 600_000_000


@with_meant
def convert(
    source: _Path,
    destination: _Path,
    *,
    to: str | None = None,
    bit_width: int | None = None,
    group_size: int | str | None = None,
    method: str | None = None,
    zero_point: str | None = None,
    scale_dtype: str | None = None,
    encoding: str | None = None,
    recipe: GivenRecipe | None = None,
    bits_per_weight: float | None = None,
    size: int | None = None,
    split: int | None = None,
    quality_floor: float | Mapping[str, float] | None = None,
    double: bool = False,
    tensors_only: bool = False,
    pre_tokenizer: str | None = None,
    importance: _Path | None = None,
    rescale: str = "off",
    threads: int | None = None,
    engine: str = "local",
    address: str | None = None,
    max_memory: int = _MAX_MEMORY,
    continue_on_error: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[Step], object] | None = None,
) -> Conversion:
    """Quantize a model's weights, and write them to a file or folder for an engine.

    Whatever can be checked without reading weights is checked first. The destination gets its
    name only when it is complete, and is on the disk then. What an interrupted run has done stays
    in a hidden folder beside it. In a store its files get their names one after the other, each
    when it is whole, and what makes them a model comes last.

    Parameters
    ----------
    source : str or path
        What `read_weights` takes: a safetensors file, a model folder, an ONNX or GGUF model,
        Parquet, Arrow or npz.
    destination : str or path
        A folder for compressed-tensors, bitsandbytes and mlx, and for parquet and arrow without a
        suffix, which then has a file for each file of the source. A str may be a URI of a store
        that pyarrow.fs or fsspec knows, like ``s3://bucket/model``.
    to : {"parquet", "arrow", "compressed-tensors", "bitsandbytes", "mlx", "gguf", "onnx"}, optional
        The format; by default what the suffix of the destination says.
    bit_width : {2, 3, 4, 5, 6, 8}, optional
        Default 4; for a GGUF model or a Hugging Face folder to gguf as the mix Q4_K_M has it.
    group_size : int, "tensor" or "block", optional
        -1 for whole rows; default 128, 32 for gguf, the largest of 128, 64 and 32 that fits nearly
        all layers for compressed-tensors, 64 or 32 for mlx, layer by layer.
    method : {"rtn", "mse", "hqq"}, optional
        Default "mse".
    zero_point : {"integer", "float", "symmetric"}, optional
        Default "integer", "symmetric" for compressed-tensors and gguf, "float" for mlx.
    scale_dtype : {"float32", "float16", "bfloat16"}, optional
        Default float32, float16 for gguf, the model's dtype for compressed-tensors, and for mlx
        bfloat16 if that is the model's, else float16.
    encoding : str, optional
        As of `quantize_batch_arrow`, with what it fixes; default "int". compressed-tensors holds
        fp8, mxfp8, mxfp4 and nvfp4, too, bitsandbytes nf4 alone, gguf those of llama.cpp, parquet
        and arrow all.
    recipe : Recipe, str, path or dict, optional
        Or what `Recipe.from_dict` takes, the path of a recipe's file, or the name of a preset
        ("text", "diffusion", "vision"), a profile ("edge", "local", "cloud") or both
        ("text-local"), "all" for all that the format can quantize, a scheme of
        compressed-tensors ("FP8_BLOCK"), or a mix of llama.cpp ("Q4_K_M") for a GGUF model. Without
        one, vectors, norms, biases, embeddings of positions and token types, routers and the like
        are not quantized; compressed-tensors and bitsandbytes leave out what the preset "text"
        does, and a GGUF model is quantized as Q4_K_M, or, where bits or other settings but the
        method are said, gets 8 bits for its embeddings and head.
    bits_per_weight : float, optional
        A budget that the bit widths of layers are fitted to, as by `Recipe.fit`; for gguf their
        types, K-quants and others.
    size : int, optional
        The most bytes that the output may have, in place of `bits_per_weight`; for gguf.
    split : int, optional
        The most bytes of a file: the output becomes several, which llama.cpp loads as one model.
        NAME.gguf is not written then, but NAME-00001-of-00003.gguf and so on; such files of the
        same name are what `overwrite` is about. For gguf, of a GGUF model or a Hugging Face folder.
    quality_floor : float or mapping, optional
        As of `quantize_stream`. Layers that the engine of compressed-tensors joins get the same,
        with which all of them pass.
    double : bool
        Store scales as codes of 8 bits, for bitsandbytes: 4.13 bits a weight instead of 4.5.
    tensors_only : bool
        Take a model whose tensors alone are written, so that no engine loads them as one: any but
        an ONNX model to onnx, a folder whose config.json names no class to gguf, a GGUF model to
        mlx, and a folder without config.json, or a safetensors file with one beside it, to all
        these. By default they are refused. Files of weights by themselves need it not.
    pre_tokenizer : str, optional
        What llama.cpp calls the way that the tokenizer of a Hugging Face folder splits texts,
        where gguf cannot find it out.
    importance : str or path, optional
        A file of the importance of columns, as of `read_importance`, for layers of its names; a
        GGUF model takes that of its Hugging Face folder, too. For method "mse".
    rescale : {"off", "on", "auto"}
        Whether columns of layers are made alike first, by powers of two that what comes before
        them is multiplied by: the model computes the same, and is quantized with less harm. "auto"
        does so where the architecture of a Hugging Face folder is known, to compressed-tensors,
        mlx and gguf; "on" refuses others. Errors are those against the rescaled weights.
    threads : int, optional
        Default: the CPUs of this process; with a cluster 1 for each task.
    engine : {"local", "ray", "spark"}
        What quantizes: this process, or tasks on a cluster of Ray or Spark, with the same bytes.
        This process reads headers either way, and writes what workers cannot.
    address : str, optional
        Of the cluster: "10.0.0.1:6379", or the master of Spark, "spark://10.0.0.1:7077"; by default
        the one that the process is connected to, or that the engine's configuration says, else one
        of this machine, which ends with the call.
    max_memory : int
        Bound on memory beyond mapped files, in bytes.
    continue_on_error : bool
        Leave layers that cannot be quantized out, with a `SkippedLayerWarning` each.
    resume : bool
        Go on from what an interrupted run has done; the result has the same bytes as if nothing
        had happened.
    overwrite : bool
        Whether what is at the destination may be replaced. It is there until what is new is
        complete; a folder in a store is no model while its files are replaced.
    progress : callable, optional
        Gets a `Step` after each batch, and some within one. An exception in it ends the run, of
        which ``resume=True`` continues what is done.

    Returns
    -------
    Conversion
        What became of every tensor, sizes, errors and seconds.

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
    OSError
        A store is not reached, or refuses something; PermissionError where it is not allowed.
    BlockingIOError
        Another run has the same destination.
    ImportError
        An engine, or what a kind of file needs, is not installed.
    ConnectionError
        A cluster, or one of its workers, does not answer.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> weights = np.random.default_rng(0).standard_normal((64, 256), dtype=np.float32)
    >>> np.savez("small.npz", up=weights)
    >>> done = pyarrowquant.convert("small.npz", "small.parquet", bit_width=8)
    >>> done.layers, done.weights, round(done.bits_per_weight, 2)
    (1, 16384, 8.5)
    >>> tensor = done.tensors[0]
    >>> tensor.name, tensor.became, tensor.settings.bit_width, tensor.bits
    ('up', 'quantized', 8, 139264)
    """
    request = Request(**locals())
    start = time.perf_counter()
    with landing(destination) as made:
        job = prepare(request, made, lambda place: recover(place) and resume)
        read = source_bytes(job.source)  # as the source may be gone when the output is there
        written = job.run(resume, progress)
    totals = written.totals
    _warn_of_missed(totals.missed)
    for text in totals.told:
        warn_of_kept(text)
    left = job.unquantized(totals.skipped)
    return Conversion(
        destination=made.place if split is None else made.beside(written.name),
        to=job.target.name,
        mix=job.origin.mix,
        mix_is_changed=job.origin.is_changed,
        layers=totals.layers,
        skipped=tuple(map(skipped_text, totals.skipped)),
        missed=tuple(totals.missed),
        underflows=tuple(totals.underflows),
        weights=totals.weights,
        bytes=written.bytes,
        bits_per_weight=totals.bits_per_weight,
        model_bits_per_weight=_bits_of_all(totals, left),
        relative_error=totals.relative_error,
        seconds=time.perf_counter() - start,
        source_bytes=read,
        unquantized=left,
        tensors=converted(job.source, totals.quantized, left),
        decoded=decoded_from(job.source, job.layers),
        tensors_only=job.is_of_tensors,
    )


@with_meant
def plan(
    source: _Path,
    destination: _Path,
    *,
    to: str | None = None,
    bit_width: int | None = None,
    group_size: int | str | None = None,
    method: str | None = None,
    zero_point: str | None = None,
    scale_dtype: str | None = None,
    encoding: str | None = None,
    recipe: GivenRecipe | None = None,
    bits_per_weight: float | None = None,
    size: int | None = None,
    split: int | None = None,
    quality_floor: float | Mapping[str, float] | None = None,
    double: bool = False,
    tensors_only: bool = False,
    pre_tokenizer: str | None = None,
    importance: _Path | None = None,
    rescale: str = "off",
    threads: int | None = None,
    engine: str = "local",
    address: str | None = None,
    max_memory: int = _MAX_MEMORY,
    continue_on_error: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[Step], object] | None = None,
) -> ConversionPlan:
    """Check what `convert` checks before any work, and return what it would do; write nothing.

    Parameters are those of `convert`. Weights are read only for `bits_per_weight` and `size`, for
    a `quality_floor` of layers that an engine joins, and in tables for rows without a shape.

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
    request = Request(**locals())
    with landing(destination) as made:
        job = prepare(request, made, lambda place: resume and is_complete(place))
        before = job.continued() if resume else None
        fitted, failed = job.fitted(Meter(weights_bytes(job.source), progress))
    layers = [
        replace(layer, rule=before_fitting.rule)
        for layer, before_fitting in zip(
            planned(job.source, job.settings, fitted), job.layers, strict=True
        )
    ]
    left = job.unquantized(failed)
    decoded = decoded_from(job.source, layers)
    return ConversionPlan(
        job.landing.place,
        job.target.name,
        job.origin.mix,
        job.origin.is_changed,
        tuple(layers),
        left,
        decoded,
        job.split_files(layers),
        before,
        source_bytes(job.source),
        job.is_of_tensors,
    )


def _warn_of_missed(missed: Sequence[str]) -> None:
    """Say in one line which layers miss the floor; there may be as many as the model has."""
    if missed:
        layers = "1 layer misses" if len(missed) == 1 else f"{len(missed):,} layers miss"
        warnings.warn(
            f"{layers} the quality floor: {first_few(missed, separator='; ')}",
            UserWarning,
            stacklevel=users_level(),
        )


def _bits_of_all(totals: Totals, left: Sequence[UnquantizedTensor]) -> float:
    """Return the bits a weight of all that the output has."""
    kept = [tensor for tensor in left if tensor.kept]
    bits = totals.stored_bits + 8 * sum(tensor.kept_bytes for tensor in kept)
    return bits / max(totals.weights + sum(math.prod(tensor.shape) for tensor in kept), 1)
