"""pyarrowquant inspect: what a file of weights or results has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from pyarrowquant import read_weights
from pyarrowquant._plan import layers
from pyarrowquant.cli._files import is_result, open_results
from pyarrowquant.cli._show import json_option, shape_text, show_json, show_table, size_text

_DTYPES = {"float": "F32", "halffloat": "F16", "double": "F64"}


@click.command(
    epilog="""\b
Examples:
  pyarrowquant inspect model.safetensors
  pyarrowquant inspect quantized.parquet --json
""",
)
@click.argument("path")
@json_option
def inspect(path: str, as_json: bool) -> None:
    """Show the tensors of PATH: a model file or folder, or a file of results."""
    result = is_result(path)
    tensors = list(_coded(Path(path)) if result else _weights(path))
    total = sum(tensor["bytes"] for tensor in tensors)
    weights = sum(math.prod(tensor["shape"]) for tensor in tensors)
    if as_json:
        show_json({"path": path, "layers": tensors, "weights": weights, "bytes": total})
        return
    kind = "bits" if result else "dtype"
    show_table(
        ["layer", "shape", kind, "size"] + (["bits a weight"] if result else []),
        (
            [
                layer["layer_name"],
                shape_text(layer["shape"]),
                str(layer["bit_width"] if result else layer["dtype"]),
                size_text(layer["bytes"]),
            ]
            + ([f"{layer['bits_per_weight']:.2f}"] if result else [])
            for layer in tensors
        ),
    )
    click.echo(f"{len(tensors)} layers, {weights:,} weights, {size_text(total)}")


def _coded(path: Path) -> Iterator[dict[str, Any]]:
    for batch in open_results(path):
        for i in range(batch.num_rows):
            groups = len(batch["scales"][i])
            shape = batch["shape"][i].as_py()
            stored = len(batch["quantized_data"][i].as_buffer()) + 8 * groups
            yield {
                "layer_name": batch["layer_name"][i].as_py(),
                "shape": shape,
                "bit_width": batch["bit_width"][i].as_py(),
                "group_size": batch["group_size"][i].as_py(),
                "bytes": stored,
                "bits_per_weight": 8 * stored / max(math.prod(shape), 1),
            }


def _weights(path: str) -> Iterator[dict[str, Any]]:
    for batch in read_weights(path, only_floats=False):
        raw = "dtype" in batch.schema.names
        element = None if raw else batch["weights"].type.value_type
        described = layers(pa.Table.from_batches([batch]))
        for i, (name, shape) in enumerate(described):
            weights = batch["weights"][i]
            if not weights.is_valid:
                size = 0
            elif element is None:
                size = len(weights.as_buffer())
            else:
                size = len(weights.values) * element.bit_width // 8
            dtype = batch["dtype"][i].as_py() if raw else _DTYPES.get(str(element), str(element))
            yield {"layer_name": name, "shape": shape, "dtype": dtype, "bytes": size}
