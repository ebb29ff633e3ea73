"""pyarrowquant dequantize: a file of results in, decoded weights out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa

from pyarrowquant import dequantize_batch_arrow
from pyarrowquant.cli._files import (
    TABLES,
    check_destination,
    format_of,
    is_result,
    local_files,
    open_results,
    write_batches,
)
from pyarrowquant.cli._show import json_option, show_json, size_text
from pyarrowquant.formats._files import Outputs
from pyarrowquant.formats._layers import Names
from pyarrowquant.formats._tensor_file import Entry, write_tensors

_DTYPES = {"float32": ("F32", 4), "float16": ("F16", 2)}


@click.command(
    epilog="""\b
Examples:
  pyarrowquant dequantize quantized.parquet weights.safetensors
  pyarrowquant dequantize quantized.parquet weights.arrow --dtype float16
""",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    type=click.Choice(["safetensors", "parquet", "arrow"]),
    help="Default: by the suffix.",
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
    """Decode the results in SOURCE, a file or a folder, and write the weights to DESTINATION."""
    check_destination(destination, overwrite, sources=local_files(source))
    kind = format_of(destination, kind, {**TABLES, ".safetensors": "safetensors"})
    if source.exists() and not is_result(str(source)):
        raise click.ClickException(f"'{source}' is no file of results")
    reader = open_results(source)
    empty = pa.Table.from_batches([], reader.schema)
    schema = dequantize_batch_arrow(empty, dtype=dtype, threads=threads).schema

    layers = 0

    def decoded() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            nonlocal layers
            layers += batch.num_rows
            table = pa.Table.from_batches([batch])
            yield from dequantize_batch_arrow(table, dtype=dtype, threads=threads).to_batches()

    weights = pa.RecordBatchReader.from_batches(schema, decoded())
    if kind == "safetensors":
        _write_safetensors(weights, source, destination, dtype, overwrite)
    else:
        write_batches(weights, destination, kind, overwrite)
    nbytes = destination.stat().st_size
    if as_json:
        show_json({"destination": str(destination), "layers": layers, "bytes": nbytes})
    else:
        click.echo(f"{layers} layers to '{destination}': {size_text(nbytes)}")


def _write_safetensors(
    weights: pa.RecordBatchReader, source: Path, destination: Path, dtype: str, overwrite: bool
) -> None:
    """Write layers as they are decoded; the source is read for their shapes first."""
    code, size = _DTYPES[dtype]
    rows = (batch.slice(i, 1) for batch in weights for i in range(batch.num_rows))

    def next_layer() -> Iterator[memoryview]:
        values = next(rows)["weights"][0].values.to_numpy()
        yield values.astype(values.dtype.newbyteorder("<"), copy=False).view(np.uint8).data

    names = Names()
    entries = [
        Entry(names.add(name), code, tuple(shape), size * math.prod(shape), next_layer)
        for batch in open_results(source)
        for name, shape in zip(
            batch["layer_name"].to_pylist(), batch["shape"].to_pylist(), strict=True
        )
    ]
    with Outputs([destination], overwrite) as outputs:
        write_tensors(outputs.temporary(destination), entries)
