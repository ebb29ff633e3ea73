"""Whole tables: quantize, dequantize, validate."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments, library
from pyarrowquant._core.arguments import Progress
from pyarrowquant._core.decoding import decode
from pyarrowquant._core.keywords import with_meant
from pyarrowquant._core.options import Options, quantize_options
from pyarrowquant._core.progress import Reporter
from pyarrowquant._core.rows import check_weights_schema
from pyarrowquant._core.source import INPUT_COLUMNS, RESULT_COLUMNS, Source, weights_bytes
from pyarrowquant._core.underflow import warn_of_underflows
from pyarrowquant.errors import LayerError, SkippedLayerWarning, users_level
from pyarrowquant.recipes.plan import Plan
from pyarrowquant.recipes.recipe import GivenRecipe


@with_meant
def quantize_batch_arrow(
    table: Any,
    bit_width: int | None = None,
    continue_on_error: bool = False,
    *,
    group_size: int | str | None = None,
    method: str = "rtn",
    zero_point: str | None = None,
    scale_dtype: str | None = None,
    encoding: str = "int",
    recipe: GivenRecipe | None = None,
    quality_floor: float | Mapping[str, float] | None = None,
    metrics: bool = False,
    sort: bool = True,
    threads: int | None = None,
    progress: Progress = None,
) -> pa.Table:
    """Quantize every layer of a table of weights.

    The weights are read where they lie, by Go worker threads, with the GIL released.

    Parameters
    ----------
    table : pyarrow.Table, RecordBatch or RecordBatchReader, or any Arrow producer
        An object with ``__arrow_c_stream__`` or ``__arrow_c_array__`` will do: polars,
        pandas, DuckDB, nanoarrow; so will a pyarrow Dataset, Scanner or ParquetFile, and a list
        or iterator of record batches. One row a layer, with the columns

        - layer_name: string of any kind, or a dictionary of strings;
        - weights: a list of any kind of float32, float16 or float64 (rounded to float32), or of
          such lists; ``arrow.fixed_shape_tensor`` of these; or binary of any kind with raw
          little-endian bytes;
        - shape, optional: list of integers. Null or absent: the shape of the tensor or of the
          lists of lists, else one row of all weights;
        - dtype, only with raw bytes: "F32", "F16" or "BF16";
        - importance, optional: list of floats, K finite values >= 0 that weigh the squared
          errors of a layer's columns for method "mse". Null or absent: what the tails of each
          column's weights tell, for layers of 64 rows and more and encodings other than "fp8"
          and "mxfp8"; else all columns weigh the same.

        Other columns are ignored. The table is only read, and not held afterwards. A reader is
        read to its end.

        Lengths, offsets and views of all producers are checked before they are used. Two kinds
        of producers nobody can check, and PyArrow may crash on what they give: those of C structs
        with pointers that are NULL or missing (of a format, a child, a callback, the sizes of a
        view's data), and those of buffers that are shorter than the array's length, offset or
        last end says.
    bit_width : {2, 3, 4, 5, 6, 8}, optional
        Bits of a code; default 4, or what the encoding has.
    continue_on_error : bool
        Leave failing layers out, with one `SkippedLayerWarning` each, instead of raising.
    group_size : int, "tensor" or "block", optional
        Consecutive weights of a row that share a scale and a zero-point: a multiple of 8, or
        -1 for the whole row; default 128, or what the encoding has. The last group of a row may be
        shorter. With encoding "fp8", "tensor" makes all weights of a layer share one scale, and
        "block" those of 128 rows and as many columns, or of what is left at the ends.
    method : {"rtn", "mse", "hqq"}
        "rtn": round to nearest over the range of the group. "mse": a search for the scale and
        zero-point of least weighted squared error, never worse than "rtn". "hqq":
        half-quadratic quantization, which moves the zero-point of "rtn".
    zero_point : {"integer", "float", "symmetric"}, optional
        "integer", the default: whole, 0 .. 2^bit_width - 1, and 0.0 decodes to 0.0. "float": any
        float32, less error. "symmetric": always 2^(bit_width - 1).
    scale_dtype : {"float32", "float16", "bfloat16"}, optional
        Round scales to this type, by default float32, before codes are chosen, so that an export
        that stores such scales is exact. They are float32 in the result either way. The weights of
        a group whose scale is rounded to 0 decode to one value, 0 if that is within their range; a
        warning counts such groups.
    encoding : str
        "int": evenly spaced codes, of which the other arguments say all. "q2_k", "q3_k", "q4_k",
        "q5_k", "q6_k", "iq4_nl", "iq4_xs": those of llama.cpp. "nf4": that of QLoRA. "mxfp4",
        "mxfp8", "nvfp4": microscaled floating point. "fp8": E4M3, with a scale a row or
        what `group_size` says. They fix bit_width, zero_point and, but for fp8, group_size and
        scale_dtype: what is said must not contradict that. Methods are "rtn" and "mse".
    recipe : Recipe, str, path, dict or None
        A `Recipe`, what `Recipe.from_dict` takes, the path of a recipe's file, or the name of a
        preset ("text", "diffusion", "vision"), a profile ("edge", "local", "cloud") or both
        ("text-local"). What to do with each layer, by its name and shape; what it does not say
        comes from the arguments. Layers that it skips are not in the result.
    quality_floor : float or dict or None
        The least cosine, or bounds named "cosine" and "relative_error". A layer that misses them
        gets the next bit width, or the next wider encoding of the family, until it passes. This
        measures layers before they are quantized, which takes as long again for each width. Errors
        are weighted by the importance of columns, where it is given.
    metrics : bool
        Add the float64 columns mse, relative_error (||w - w'|| / ||w||), cosine and
        max_abs_error.
    sort : bool
        Sort the result by layer_name (order of bytes, stable); otherwise keep the input order.
    threads : int or None
        Workers; None for the CPUs that this process may use. The result does not depend on it.
    progress : True or callable or None
        True for a bar on standard error, or a function of (layer_name, fraction of the bytes
        done), called once a layer in the caller's thread.

    Returns
    -------
    pyarrow.Table
        One row a layer: layer_name string, quantized_data binary, scales list<float32>,
        zero_points list<float32>, shape list<int64>, bit_width uint8, group_size int32, and
        the metrics. A layer of shape (d0, d1, ...) has N = d0 rows of K = d1*d2*... columns;
        one with fewer than two dimensions is one row. quantized_data is N rows of
        ceil(K*bit_width/8) bytes, each a little-endian bit stream; scales and zero_points are
        N * ceil(K/group_size) values, row-major. The caller owns the table; it shares no
        memory with the input. Where layers may have another encoding than "int", there are also
        encoding string and, null where a layer has none, levels, super_scales and super_minimums
        list<float32>; zero_points is null where all are 0. The schema's metadata has
        JSON under the key "pyarrowquant".

    Raises
    ------
    QuantizationError
        Layers failed; its ``errors`` name all of them.
    ValueError
        An argument is out of bounds, the schema does not fit, or the data cannot be read.
    TypeError
        An argument has the wrong type, or `table` is not Arrow data.
    MemoryError
        There is no memory for the result.
    RuntimeError
        This process is a fork of one that had used the package.

    Examples
    --------
    >>> import pyarrow as pa
    >>> import pyarrowquant
    >>> table = pa.table({"layer_name": ["a"], "weights": [[0.0, 1.0, 2.0, 3.0]]})
    >>> result = pyarrowquant.quantize_batch_arrow(table, bit_width=2)
    >>> result["quantized_data"][0].as_py().hex()
    'e4'
    """
    options = quantize_options(
        bit_width=bit_width,
        continue_on_error=continue_on_error,
        group_size=group_size,
        method=method,
        zero_point=zero_point,
        scale_dtype=scale_dtype,
        encoding=encoding,
        metrics=metrics,
        sort=sort,
        threads=threads,
    )
    arguments.check_progress(progress)
    source = Source(table, INPUT_COLUMNS)
    type_names = tuple(source.type_names.items())
    if source.is_read and recipe is None and quality_floor is None:
        weights = source.read_all()
        encoded = _encoded(options, type_names)
    else:
        plan = Plan(replace(options, type_names=type_names), recipe, quality_floor)
        library.validate(source.schema, plan.options)  # before anything is read
        weights = source.read_all()
        encoded = plan.options_for(weights)
    size = weights_bytes(weights) if progress else 0
    with Reporter(progress, size) as reporter:
        result = quantize_table(weights, encoded, reporter, size)
    warn_of_underflows(result.underflows)
    return result.table


@lru_cache(maxsize=64)
def _encoded(options: Options, type_names: tuple[tuple[str, str], ...]) -> bytes:
    """Encode options that are the same for all layers; once, since small calls are many."""
    return replace(options, type_names=type_names).encoded()


def quantize_table(
    table: pa.Table, options: bytes, reporter: Reporter | None, size: int
) -> library.Result:
    """Run one job, and warn about the layers that it left out."""
    if reporter is not None:
        reporter.start(size)
    result = library.quantize(table, options, reporter.told if reporter else None)
    for error in result.skipped:
        warnings.warn(skipped_text(error), SkippedLayerWarning, stacklevel=users_level())
    return result


def skipped_text(error: LayerError) -> str:
    return f"Skipped: {error.message}"


def dequantize_batch_arrow(
    result: Any, *, dtype: str = "float32", threads: int | None = None
) -> pa.Table:
    """Decode every layer of a result: w = (level - zero_point) * scale, in float32.

    The level of a code is the code itself, or where the row has levels the one of that number.

    Parameters
    ----------
    result : pyarrow.Table or any Arrow producer
        What `quantize_batch_arrow` gave: whole, filtered, concatenated, or read back from a
        file. It is only read.
    dtype : {"float32", "float16"}
        Type of the weights; float16 is rounded to nearest, ties to even.
    threads : int or None
        Workers; None for the CPUs that this process may use.

    Returns
    -------
    pyarrow.Table
        One row a layer in the order of `result`: layer_name string, weights list of `dtype`
        (row-major), shape list<int64>. The caller owns it.

    Raises
    ------
    QuantizationError
        A row is corrupt, or its weights are beyond float16; ``errors`` name all such rows.
    ValueError
        An argument is out of bounds, or the schema does not fit.
    TypeError
        An argument has the wrong type, or `result` is not Arrow data.

    Examples
    --------
    >>> import pyarrow as pa
    >>> import pyarrowquant
    >>> table = pa.table({"layer_name": ["a"], "weights": [[0.0, 1.0, 2.0, 3.0]]})
    >>> result = pyarrowquant.quantize_batch_arrow(table, bit_width=2)
    >>> pyarrowquant.dequantize_batch_arrow(result)["weights"].to_pylist()
    [[0.0, 1.0, 2.0, 3.0]]
    """
    return decode(Source(result, RESULT_COLUMNS), dtype, threads)


def validate_arrow_input(table: Any) -> None:
    """Check that a table's schema can be quantized. No data is read.

    Parameters
    ----------
    table : pyarrow.Table or any Arrow producer
        As for `quantize_batch_arrow`. A stream is opened, but no batch is taken from it.

    Raises
    ------
    ValueError
        A column is missing or has the wrong type.
    TypeError
        `table` is not Arrow data.

    Examples
    --------
    >>> import pyarrow as pa
    >>> import pyarrowquant
    >>> pyarrowquant.validate_arrow_input(pa.table({"layer_name": ["a"], "weights": [[1.0]]}))
    >>> pyarrowquant.validate_arrow_input(pa.table({"layer_name": ["a"], "weights": [1]}))
    Traceback (most recent call last):
        ...
    ValueError: Column 'weights' has type int64; expected type list<float32> ...
    """
    check_weights_schema(Source(table, INPUT_COLUMNS))
