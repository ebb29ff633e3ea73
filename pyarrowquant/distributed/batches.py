"""Quantize, decode and compare the batches of a table, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.source import INPUT_COLUMNS, RESULT_COLUMNS
from pyarrowquant.comparison import compare
from pyarrowquant.distributed.batch_function import BatchFunction
from pyarrowquant.recipes.recipe import GivenRecipe, recipe_of
from pyarrowquant.tables import dequantize_batch_arrow, quantize_batch_arrow

_WEIGHTS = pa.schema([("layer_name", pa.string()), ("weights", pa.list_(pa.float32()))])


def quantize_batches(
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
    threads: int | None = None,
) -> BatchFunction:
    """Return a function that quantizes the layers of each batch of a table on a cluster.

    A batch is a table as `quantize_batch_arrow` takes it, which see for the parameters too: a row
    is a layer, and other columns are left out. The values are those that `quantize_batch_arrow`
    gives for the same rows, in their order, however the table is cut into batches.

    Parameters
    ----------
    recipe : Recipe, str, path, dict or None
        A path is read here, and not by the workers.
    threads : int or None
        Workers within a task; None for the CPUs that the engine gave the task: ``num_cpus`` of
        Ray, ``spark.task.cpus`` of Spark.

    Returns
    -------
    BatchFunction

    Raises
    ------
    ValueError, TypeError
        For wrong arguments, here and not on a worker. The function itself raises what
        `quantize_batch_arrow` does for a batch.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from pyarrowquant.distributed import quantize_batches
    >>> quantize = quantize_batches(bit_width=2)
    >>> batch = pa.table({"layer_name": ["a"], "weights": [[0.0, 1.0, 2.0, 3.0]]})
    >>> quantize(batch)["quantized_data"][0].as_py().hex()
    'e4'
    >>> quantize(batch).schema == quantize.schema
    True
    """
    run = partial(
        quantize_batch_arrow,
        bit_width=bit_width,
        continue_on_error=continue_on_error,
        group_size=group_size,
        method=method,
        zero_point=zero_point,
        scale_dtype=scale_dtype,
        encoding=encoding,
        recipe=recipe_of(recipe),
        quality_floor=arguments.quality_floor(quality_floor),
        metrics=metrics,
        sort=False,
    )
    return BatchFunction(run, _WEIGHTS.empty_table(), threads)


def dequantize_batches(*, dtype: str = "float32", threads: int | None = None) -> BatchFunction:
    """Return a function that decodes the layers of each batch of results on a cluster.

    Parameters
    ----------
    dtype : {"float32", "float16"}
        Type of the weights. Spark has no float16.
    threads : int or None
        As of `quantize_batches`.

    Returns
    -------
    BatchFunction
        Its batches are results of `quantize_batches` or `quantize_batch_arrow`; it returns
        weights as `dequantize_batch_arrow` does.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from pyarrowquant.distributed import dequantize_batches, quantize_batches
    >>> batch = pa.table({"layer_name": ["a"], "weights": [[0.0, 1.0, 2.0, 3.0]]})
    >>> dequantize_batches()(quantize_batches(bit_width=2)(batch))["weights"].to_pylist()
    [[0.0, 1.0, 2.0, 3.0]]
    """
    run = partial(dequantize_batch_arrow, dtype=dtype)
    return BatchFunction(run, _results(), threads)


def compare_batches(*, threads: int | None = None) -> BatchFunction:
    """Return a function that measures the errors of the layers of each batch on a cluster.

    Parameters
    ----------
    threads : int or None
        As of `quantize_batches`.

    Returns
    -------
    BatchFunction
        A row of its batches has the weights of a layer and the result: the two tables, joined by
        layer_name, with one column shape. It returns what `compare` does.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from pyarrowquant.distributed import compare_batches, quantize_batches
    >>> batch = pa.table({"layer_name": ["a"], "weights": [[0.0, 1.25, 2.0, 3.0]]})
    >>> result = quantize_batches(bit_width=2)(batch)
    >>> joined = result.append_column("weights", batch["weights"])
    >>> compare_batches()(joined)["max_abs_error"].to_pylist()
    [0.25]
    """
    joined = _results().append_column("weights", _WEIGHTS.empty_table()["weights"])
    return BatchFunction(_compare_joined, joined, threads)


def _results() -> pa.Table:
    """Return a result without rows."""
    return quantize_batch_arrow(_WEIGHTS.empty_table())


def _compare_joined(joined: pa.Table, threads: int | None) -> pa.Table:
    """Compare the weights of each row with its result."""
    names = joined.schema.names
    weights = joined.select([name for name in names if name in INPUT_COLUMNS])
    results = joined.select([name for name in names if name in RESULT_COLUMNS])
    return compare(weights, results, threads=threads)


def spark_schema(**settings: Any) -> str:
    """Return the schema of what `quantize_batches` gives to Spark, for ``mapInArrow``.

    Parameters
    ----------
    **settings
        Those of `quantize_batches`.

    Returns
    -------
    str
        Columns and types, as Spark reads them. They depend on the settings, and not on the
        layers: where a layer may have another encoding than "int", all rows have the columns of
        encodings, which are null where a layer has none.

    Examples
    --------
    >>> from pyarrowquant.distributed import spark_schema
    >>> spark_schema(bit_width=4)
    'layer_name string, quantized_data binary, scales array<float>, ... group_size int'
    """
    return quantize_batches(**settings).spark_schema
