"""How far the layers of a result are from the original weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments, library
from pyarrowquant._core.source import COMPARED_COLUMNS, Source
from pyarrowquant.errors import ArgumentTypeError


def compare(original: Any, result: Any, *, threads: int | None = None) -> pa.Table:
    """Measure the errors of every layer of a result against the original weights.

    Nothing is decoded as a whole: a call takes a few MiB, however large the tables are.

    Parameters
    ----------
    original : pyarrow.Table or any Arrow producer
        The weights, in any form that `quantize_batch_arrow` takes; float64 is rounded to
        float32. Layers are looked up by name. Layers that `result` does not have are ignored,
        whatever is wrong with them: they may have been left out.
    result : pyarrow.Table or any Arrow producer
        What `quantize_batch_arrow` gave: whole, filtered, concatenated, or read back from a
        file. Or layers that were decoded, here or elsewhere: a table of weights in any form that
        `quantize_batch_arrow` takes. With a column ``quantized_data`` it is the former.
    threads : int or None
        Workers; None for the CPUs that this process may use. Results do not depend on it.

    Returns
    -------
    pyarrow.Table
        One row a layer in the order of `result`: layer_name string, shape list<int64> (that of
        `result`), and, all float64, w being the weights and d the decoded ones,

        - mse: the mean of (w - d)^2;
        - relative_error: ||w - d|| / ||w||;
        - cosine: of the angle between w and d;
        - max_abs_error: the largest |w - d|;
        - signal_to_noise_db: 10 log10(sum of w^2 / sum of (w - d)^2), inf without any error;
        - norm: ||w||.

        The first four are what ``metrics=True`` gives. Where w and d are all zeros or empty,
        cosine is 1 and the errors are 0. Where only w is all zeros, relative_error is inf and
        signal_to_noise_db -inf. The caller owns the table.

    Raises
    ------
    QuantizationError
        A layer of `result` is missing in `original`, or has another number of weights there, or
        other rows and columns, but for dimensions of 1 and shapes of fewer dimensions; a name is
        there more than once; a weight is NaN or Inf; a row is corrupt. ``errors`` name all such
        layers, and each message says in which table it is.
    ValueError
        An argument is out of bounds, a schema does not fit, or the data cannot be read.
    TypeError
        An argument has the wrong type, or a table is not Arrow data.
    MemoryError
        There is no memory for the result.
    RuntimeError
        This process is a fork of one that had used the package.

    Examples
    --------
    >>> import pyarrow as pa
    >>> import pyarrowquant
    >>> table = pa.table({"layer_name": ["a"], "weights": [[0.0, 1.25, 2.0, 3.0]]})
    >>> result = pyarrowquant.quantize_batch_arrow(table, bit_width=2)
    >>> errors = pyarrowquant.compare(table, result)
    >>> errors["max_abs_error"].to_pylist()
    [0.25]
    >>> pyarrowquant.compare(table, table)["signal_to_noise_db"].to_pylist()
    [inf]
    """
    number = arguments.thread_count(threads)
    with _about("original"):
        weights = Source(original, COMPARED_COLUMNS)
    with _about("result"):
        decoded = Source(result, COMPARED_COLUMNS)
    options = {
        "threads": number,
        "kernel": arguments.kernel(),
        "original_type_names": weights.type_names,
        "result_type_names": decoded.type_names,
    }
    with _about("original"):
        original_table = weights.read_all()
    with _about("result"):
        result_table = decoded.read_all()
    return library.compare(original_table, result_table, library.encode(options))


@contextmanager
def _about(table: str) -> Iterator[None]:
    """Say in errors which table they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (ArgumentTypeError, ValueError):
            raise  # the source's own
        raise type(error)(f"In {table}: {error}") from error
