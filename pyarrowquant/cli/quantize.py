"""pyarrowquant quantize: a model file or folder in, a table of results out."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from pyarrowquant import dequantize_batch_arrow, quantize_stream, read_weights
from pyarrowquant._plan import layers as described
from pyarrowquant.cli._files import (
    SUFFIXES,
    TABLES,
    check_destination,
    format_of,
    source_bytes,
    watched,
)
from pyarrowquant.cli._formats import DEFAULTS, FORMATS, with_kept, write
from pyarrowquant.cli._progress import Meter
from pyarrowquant.cli._show import json_option, show_json, size_text
from pyarrowquant.cli.recipe import recipe_of
from pyarrowquant.errors import SkippedLayerWarning
from pyarrowquant.recipe import Recipe
from pyarrowquant.rule import BIT_WIDTHS

_WIDTHS = click.Choice([str(width) for width in BIT_WIDTHS])


def _floor(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> dict[str, float] | None:
    """Parse "0.99", "cosine=0.99" or "relative_error=0.1,cosine=0.99"."""
    if text is None:
        return None
    bounds = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            bounds[name.strip() or "cosine"] = float(number)
        except ValueError:
            raise click.BadParameter(f"{part!r} is not NAME=NUMBER") from None
    return bounds


@click.command(
    epilog="""\b
Examples:
  pyarrowquant quantize model.safetensors model.parquet
  pyarrowquant quantize models/llama out.arrow --recipe text --bits 4
  pyarrowquant quantize model.npz out.parquet --bits-per-weight 4.25
  pyarrowquant quantize models/llama llama-mlx --to mlx --recipe text
  pyarrowquant quantize model.safetensors model.gguf --recipe text
""",
)
@click.argument("source")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--to", "kind", type=click.Choice(FORMATS), help="Default: by the suffix; mlx is a folder."
)
@click.option("--bits", type=_WIDTHS, help="Bits of a code; default 4.")
@click.option("--group-size", type=int, help="-1: whole rows; default as the format has it.")
@click.option("--method", type=click.Choice(["rtn", "mse", "hqq"]), help="Default mse.")
@click.option(
    "--zero-point",
    type=click.Choice(["integer", "float", "symmetric"]),
    help="Default as the format has it.",
)
@click.option(
    "--scale-dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Default as the format has it.",
)
@click.option("--recipe", help="A file, a preset (text, diffusion, vision) or a profile.")
@click.option("--bits-per-weight", type=float, help="Fit bit widths to this budget.")
@click.option("--quality-floor", callback=_floor, help="Least cosine; or relative_error=NUMBER.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: the CPUs of this process.")
@click.option("--continue-on-error", is_flag=True, help="Leave failing layers out.")
@click.option("--overwrite", is_flag=True, help="Replace DESTINATION if it exists.")
@click.option("--dry-run", is_flag=True, help="Check and show what would be done; write nothing.")
@json_option
def quantize(
    source: str,
    destination: Path,
    kind: str | None,
    bits: str | None,
    group_size: int | None,
    method: str | None,
    zero_point: str | None,
    scale_dtype: str | None,
    recipe: str | None,
    bits_per_weight: float | None,
    quality_floor: dict[str, float] | None,
    threads: int | None,
    continue_on_error: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Quantize the weights of SOURCE and write them to DESTINATION.

    SOURCE is a safetensors file, a model folder, Parquet, Arrow or npz. DESTINATION gets its name
    only when it is complete. Defaults are what the format holds: groups of 128, 64 for mlx, 32 for
    gguf; integer zero-points, symmetric for gguf; scales of float32, float16 for mlx and gguf.
    mlx and gguf also get the layers that are not quantized.
    """
    if kind != "mlx":
        check_destination(destination, overwrite)
    kind = format_of(destination, kind, SUFFIXES)
    said = {
        "bit_width": None if bits is None else int(bits),
        "group_size": group_size,
        "method": method,
        "zero_point": zero_point,
        "scale_dtype": scale_dtype,
    }
    settings = {
        field: DEFAULTS[kind][field] if said[field] is None else said[field] for field in said
    }
    rules = None if recipe is None else recipe_of(recipe)
    rules = with_kept(kind, rules)
    if bits_per_weight is not None and bits is not None:
        raise click.UsageError("--bits and --bits-per-weight exclude each other")
    if bits_per_weight is not None:
        rules = _fit(source, bits_per_weight, settings, rules, threads, continue_on_error)
    options: dict[str, Any] = {**settings, "recipe": rules, "quality_floor": quality_floor}
    options |= {"threads": threads, "continue_on_error": continue_on_error, "metrics": True}
    if dry_run:
        quantize_stream(read_weights(source), **options)  # checks schema and arguments
        _show_plan(source, destination, kind, settings, rules, as_json)
        return
    start = time.perf_counter()
    totals = _Totals()
    with Meter("quantize", source_bytes(source)) as meter, warnings.catch_warnings():
        warnings.showwarning = totals.warn  # type: ignore[assignment]
        warnings.simplefilter("always", UserWarning)
        reader = quantize_stream(meter.watch(read_weights(source)), **options)
        write(kind, totals.watch(reader), source, destination, overwrite)
    totals.show(destination, kind, time.perf_counter() - start, as_json)


def _fit(
    source: str,
    bits_per_weight: float,
    settings: dict[str, Any],
    rules: Recipe | None,
    threads: int | None,
    continue_on_error: bool,
) -> Recipe:
    """Fit a recipe to all widths of these settings."""
    candidates = [{**settings, "bit_width": width} for width in BIT_WIDTHS]
    return Recipe.fit(
        read_weights(source),
        bits_per_weight,
        candidates,
        recipe=rules,
        threads=threads,
        progress=sys.stderr.isatty(),
        continue_on_error=continue_on_error,
    )


def _show_plan(
    source: str,
    destination: Path,
    kind: str,
    settings: dict[str, Any],
    rules: Recipe | None,
    as_json: bool,
) -> None:
    layers: list[dict[str, Any]] = []
    for batch in read_weights(source):
        for name, shape in described(pa.Table.from_batches([batch])):
            said: dict[str, Any] | None = {}
            if rules is not None and name is not None and None not in shape:
                said = rules.settings_of(name, shape)
            chosen = None if said is None else {**settings, **said}
            layers.append({"layer_name": name, "shape": shape, "settings": chosen})
    wanted = [layer for layer in layers if layer["settings"] is not None]
    if as_json:
        plan = {"destination": str(destination), "format": kind, "layers": layers}
        show_json(plan)
        return
    widths: dict[int, int] = {}
    for layer in wanted:
        width = layer["settings"]["bit_width"]
        widths[width] = widths.get(width, 0) + 1
    click.echo(f"{len(wanted)} of {len(layers)} layers would be quantized to '{destination}'")
    for width in sorted(widths):
        click.echo(f"  {widths[width]} with {width} bits")


def _squares(row: pa.RecordBatch) -> float:
    """Sum of the squared weights that a row decodes to."""
    weights = dequantize_batch_arrow(pa.Table.from_batches([row]))["weights"][0].values
    return float(np.square(weights.to_numpy(), dtype=np.float64).sum())


class _Totals:
    """Sums over the layers of a run."""

    def __init__(self) -> None:
        self.layers = 0
        self.skipped: list[str] = []
        self.weights = 0
        self.stored_bytes = 0
        self._squared_error = 0.0
        self._norm = 0.0

    def warn(self, message: Warning | str, category: type[Warning], *_: object) -> None:
        """Print a warning in a line of its own."""
        click.echo(str(message), err=True)
        if issubclass(category, SkippedLayerWarning):
            self.skipped.append(str(message))

    def watch(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """Count all batches; at the end there must have been some layer."""

        def batches() -> Iterator[pa.RecordBatch]:
            yield from watched(reader, self.add)
            if self.layers == 0:
                raise ValueError("No layer was quantized: all failed, or the recipe skips all")

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def add(self, batch: pa.RecordBatch) -> None:
        columns = ("shape", "mse", "relative_error")
        for i, row in enumerate(batch.select(columns).to_pylist()):
            count = math.prod(row["shape"])
            error = row["mse"] * count
            self._squared_error += error
            if row["relative_error"] > 0:
                self._norm += error / row["relative_error"] ** 2
            else:
                self._norm += _squares(batch.slice(i, 1))  # exact: decoded as it was
            self.weights += count
            self.stored_bytes += 8 * len(batch["scales"][i])
        self.layers += batch.num_rows
        self.stored_bytes += sum(len(data.as_buffer()) for data in batch["quantized_data"])

    def show(self, destination: Path, kind: str, seconds: float, as_json: bool) -> None:
        relative_error = math.sqrt(self._squared_error / self._norm) if self._norm else 0.0
        summary = {
            "destination": str(destination),
            "layers": self.layers,
            "skipped": self.skipped,
            "weights": self.weights,
            "bytes": _size(destination),
            "bits_per_weight": 8 * self.stored_bytes / max(self.weights, 1),
            "relative_error": relative_error,
            "seconds": seconds,
        }
        if kind not in TABLES.values():  # other formats have other scales and zero-points
            del summary["bits_per_weight"]
        if as_json:
            show_json(summary)
            return
        bits = summary.get("bits_per_weight")
        click.echo(
            f"{self.layers} layers, {self.weights:,} weights, "
            + ("" if bits is None else f"{bits:.2f} bits a weight, ")
            + f"relative error {relative_error:.4f}, {seconds:.2f} s"
        )
        if self.skipped:
            click.echo(f"{len(self.skipped)} layers were left out")
        click.echo(f"'{destination}': {size_text(_size(destination))}")


def _size(path: Path) -> int:
    """Bytes of a file with its external data, or of a folder."""
    data = path.with_name(f"{path.name}.data")
    files = path.iterdir() if path.is_dir() else (path, data)
    return sum(file.stat().st_size for file in files if file.is_file())
