"""pyarrowquant dequantize: a file of results in, decoded weights out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pyarrow as pa

from pyarrowquant import dequantize_batch_arrow
from pyarrowquant.cli._files import (
    TABLES,
    check_destination,
    format_of,
    is_result,
    open_results,
    write_batches,
)
from pyarrowquant.cli._show import json_option, show_json, size_text


@click.command(
    epilog="""\b
Examples:
  pyarrowquant dequantize quantized.parquet weights.parquet
  pyarrowquant dequantize quantized.parquet weights.arrow --dtype float16
""",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--to", "kind", type=click.Choice(["parquet", "arrow"]), help="Default: by the suffix."
)
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: the CPUs of this process.")
@click.option("--overwrite", is_flag=True, help="Replace DESTINATION if it exists.")
@json_option
def dequantize(
    source: Path,
    destination: Path,
    kind: str | None,
    dtype: str,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Decode the results in SOURCE and write the weights to DESTINATION."""
    check_destination(destination, overwrite)
    kind = format_of(destination, kind, TABLES)
    if source.exists() and not is_result(str(source)):
        raise click.ClickException(f"'{source}' is no file of results")
    reader = open_results(source)
    empty = dequantize_batch_arrow(
        pa.Table.from_batches([], reader.schema), dtype=dtype, threads=threads
    )

    layers = 0

    def decoded() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            nonlocal layers
            layers += batch.num_rows
            table = pa.Table.from_batches([batch])
            yield from dequantize_batch_arrow(table, dtype=dtype, threads=threads).to_batches()

    weights = pa.RecordBatchReader.from_batches(empty.schema, decoded())
    write_batches(weights, destination, kind, overwrite)
    nbytes = destination.stat().st_size
    if as_json:
        show_json({"destination": str(destination), "layers": layers, "bytes": nbytes})
    else:
        click.echo(f"{layers} layers to '{destination}': {size_text(nbytes)}")
