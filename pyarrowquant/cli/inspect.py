"""pyarrowquant inspect: what a file of weights or results has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from pyarrowquant._core.binary import is_binary, lengths
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.nested import element_type, flat
from pyarrowquant._core.quoting import in_line, quoted
from pyarrowquant._core.rows import layers
from pyarrowquant.cli._read_files import ReadFiles
from pyarrowquant.cli._show import (
    counted,
    json_option,
    shape_text,
    show_json,
    show_table,
    size_text,
)
from pyarrowquant.conversion.result_files import naming, results_in
from pyarrowquant.conversion.source import is_result
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model
from pyarrowquant.reading.safetensors_header import BITS
from pyarrowquant.reading.tensors import UndecodableTensor

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
    """Show the tensors of PATH: a model file or folder, quantized or not, or a table of results.

    The exit code is 1 where codes lack something, or contradict config.json.
    """
    read = ReadFiles(path)
    result = is_result(path)
    with read.reading():
        model = None if result else open_model(locate(path, None))
        tensors = list(_coded(Path(path)) if model is None else _weights(path, model))
    read.check()
    total = sum(tensor["bytes"] for tensor in tensors)
    weights = sum(math.prod(tensor["shape"]) for tensor in tensors)
    if as_json:
        show_json({"path": path, "layers": tensors, "weights": weights, "bytes": total})
    else:
        _show(tensors, result, weights, total)
    if model is not None:
        model.refuse_damage()


def _show(tensors: list[dict[str, Any]], result: bool, weights: int, total: int) -> None:
    kind = "bits" if result else "dtype"
    encoded = any(tensor.get("encoding", INTEGER) != INTEGER for tensor in tensors)
    show_table(
        ["layer", "shape"]
        + (["encoding"] if encoded else [])
        + [kind, "size"]
        + (["bits a weight"] if result else []),
        (
            [in_line(layer["layer_name"]), shape_text(layer["shape"])]
            + ([layer["encoding"]] if encoded else [])
            + [
                str(layer["bit_width"] if result else layer["dtype"]),
                size_text(layer["bytes"]),
            ]
            + ([f"{layer['bits_per_weight']:.2f}"] if result else [])
            for layer in tensors
        ),
    )
    layers_text, weights_text = counted(len(tensors), "layer"), counted(weights, "weight")
    bits = 8 * total / max(weights, 1)
    click.echo(f"{layers_text}, {weights_text}, {size_text(total)}, {bits:.2f} bits a weight")
    for layer in tensors:
        if "problem" in layer:
            click.echo(f"Not decoded: {in_line(layer['layer_name'])}, {layer['problem']}")


def _coded(path: Path) -> Iterator[dict[str, Any]]:
    for _, rows in results_in(path):
        for layer in rows:
            stored = layer.codes.size + layer.scale_bytes + layer.zero_point_bytes
            yield {
                "layer_name": layer.name,
                "shape": list(layer.shape),
                "bit_width": layer.bits,
                "group_size": layer.group_size,
                "encoding": layer.encoding,
                "bytes": stored,
                "bits_per_weight": 8 * stored / max(math.prod(layer.shape), 1),
            }


def _weights(path: str, model: Model) -> Iterator[dict[str, Any]]:
    if model.tensors is None:
        yield from _rows(path, model)
        return
    for tensor in model.tensors:
        row = _described(tensor.name, tensor.shape, tensor.stored_dtype, tensor.stored_bytes)
        if isinstance(tensor, UndecodableTensor):
            row["problem"] = tensor.problem
        yield row


def _rows(path: str, model: Model) -> Iterator[dict[str, Any]]:
    """Describe the rows of files that say what they have with their data."""
    first = 0
    with naming(path):
        for batch in model.reader(only_floats=False):
            weights = batch["weights"]
            if is_binary(weights.type):
                sizes, dtypes = lengths(weights), batch["dtype"].to_pylist()
            else:
                element = element_type(weights.type)
                counts = [len(flat(values)) if values.is_valid else 0 for values in weights]
                sizes = [count * element.bit_width // 8 for count in counts]
                dtypes = [_DTYPES.get(str(element), str(element))] * len(sizes)
            rows = layers(pa.Table.from_batches([batch]))
            nameless = batch["layer_name"].is_null().index(True).as_py()
            if nameless >= 0:
                raise ValueError(f"Layer in row {first + nameless}: layer_name is null")
            first += len(batch)
            for (name, shape), dtype, size in zip(rows, dtypes, sizes, strict=True):
                _check(name, shape, dtype, size)
                yield _described(name, shape, dtype, size)


def _check(name: str | None, shape: Sequence[int | None], dtype: str, size: int) -> None:
    """Refuse what a header could not say: rows may have anything."""
    dimensions = [-1 if n is None else n for n in shape]
    bits = BITS.get(dtype)
    if min(dimensions, default=0) < 0 or (bits and math.prod(dimensions) * bits != 8 * size):
        raise ValueError(
            f"Layer {quoted(name)} has shape {list(shape)} and {size} bytes of {dtype}"
        )


def _described(name: str | None, shape: Sequence[int], dtype: str, size: int) -> dict[str, Any]:
    return {"layer_name": name, "shape": list(shape), "dtype": dtype, "bytes": size}
