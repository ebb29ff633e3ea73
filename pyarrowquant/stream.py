"""Streams: one batch of the source at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments, library
from pyarrowquant._core.arguments import Progress
from pyarrowquant._core.bounds import BIT_WIDTHS
from pyarrowquant._core.keywords import with_meant
from pyarrowquant._core.options import Options, quantize_options
from pyarrowquant._core.progress import EachPart, Reporter
from pyarrowquant._core.source import INPUT_COLUMNS, Source, weights_bytes
from pyarrowquant._core.underflow import Underflow, warn_of_underflows
from pyarrowquant.errors import LayerError
from pyarrowquant.recipes.plan import Fitting, LayerScale, Plan
from pyarrowquant.recipes.recipe import GivenRecipe
from pyarrowquant.tables import quantize_table


@with_meant
def quantize_stream(
    source: Any,
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
    progress: Progress = None,
) -> pa.RecordBatchReader:
    """Quantize a stream of layers as it is read, in input order.

    Nothing but the schema is read before the first batch is taken. A batch of the result is
    made from one batch of the source, so memory is bounded by the largest of them.

    Parameters
    ----------
    source : pyarrow.RecordBatchReader or any Arrow producer
        As the table of `quantize_batch_arrow`, which see for the other parameters too.
    progress : True or callable or None
        As for `quantize_batch_arrow`; for a source of unknown length the fraction is of what
        has been read.

    Returns
    -------
    pyarrow.RecordBatchReader
        Batches with the columns of `quantize_batch_arrow`. Reading one raises what
        `quantize_batch_arrow` would for that batch, with rows counted over the whole source, or
        what the source raises. Dropping it releases the source.

    Raises
    ------
    ValueError, TypeError
        For wrong arguments and wrong schemas, at once.

    Examples
    --------
    >>> import pyarrow as pa
    >>> import pyarrowquant
    >>> table = pa.table({"layer_name": ["a", "b"], "weights": [[1.0], [2.0]]})
    >>> for batch in pyarrowquant.quantize_stream(table.to_reader(max_chunksize=1)):
    ...     print(batch["layer_name"].to_pylist())
    ['a']
    ['b']
    """
    return stream_within(
        lambda _: BIT_WIDTHS,
        source,
        quantize_options(
            bit_width=bit_width,
            continue_on_error=continue_on_error,
            group_size=group_size,
            method=method,
            zero_point=zero_point,
            scale_dtype=scale_dtype,
            encoding=encoding,
            metrics=metrics,
            sort=False,
            threads=threads,
        ),
        recipe,
        quality_floor,
        progress,
    )


def stream_within(
    widths_with: Callable[[str], Sequence[int]],
    source: Any,
    options: Options,
    recipe: GivenRecipe | None,
    quality_floor: float | Mapping[str, float] | None,
    progress: Progress | EachPart = None,
    skipped: list[LayerError] | None = None,
    missed: list[str] | None = None,
    underflows: list[Underflow] | None = None,
    fitting: Fitting = lambda settings, _: settings,
    layer_scale: LayerScale | None = None,
) -> pa.RecordBatchReader:
    """As `quantize_stream`, with bit widths that a floor may choose with zero-points of a kind.

    What it takes for a layer is what `fitting` gives for it, and its least scale what `layer_scale`
    gives, as of `Plan`.
    Errors of layers that are left out are added to `skipped`, and what is said of those that miss
    the floor to `missed`. Layers with groups that have no scale are added to `underflows`; without
    it, a warning at the end is about them.
    """
    if not isinstance(progress, EachPart):
        arguments.check_progress(progress)
    opened = Source(source, INPUT_COLUMNS)
    options = replace(options, type_names=tuple(opened.type_names.items()))
    plan = Plan(options, recipe, quality_floor, widths_with, fitting, layer_scale)
    if missed is not None:
        plan.missed = missed
    library.validate(opened.schema, plan.options)
    empty = pa.Table.from_batches([], opened.schema)
    schema = quantize_table(empty, plan.options, None, 0).table.schema
    return pa.RecordBatchReader.from_batches(
        schema,
        _batches(opened, plan, schema, progress, [] if skipped is None else skipped, underflows),
    )


def _batches(
    source: Source,
    plan: Plan,
    schema: pa.Schema,
    progress: Progress | EachPart,
    skipped: list[LayerError],
    underflows: list[Underflow] | None,
) -> Iterator[pa.RecordBatch]:
    whole = sum(map(weights_bytes, source.batches())) if progress and source.is_read else None
    row = 0
    found: list[Underflow] = [] if underflows is None else underflows
    with Reporter(progress, whole) as reporter:
        for batch in source.batches():
            size = weights_bytes(batch) if reporter else 0
            table = pa.Table.from_batches([batch])
            result = quantize_table(table, plan.options_for(table, row), reporter, size)
            skipped += result.skipped
            found += result.underflows
            row += batch.num_rows
            del batch, table  # before the next one is read
            if result.table.schema != schema:
                raise ValueError(
                    "A layer of the stream has over 2 GiB of packed data, which a stream cannot "
                    "hold; use quantize_batch_arrow()"
                )
            yield from result.table.to_batches()
    if underflows is None:
        warn_of_underflows(found)
