"""pyarrowquant quantize: a model file or folder in, a table of results out."""

from __future__ import annotations

import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from pyarrowquant import quantize_stream, read_weights
from pyarrowquant.cli._files import check_destination, format_of, source_bytes, write_batches
from pyarrowquant.cli._progress import Meter
from pyarrowquant.cli._show import json_option, show_json, size_text
from pyarrowquant.cli.recipe import recipe_of
from pyarrowquant.errors import SkippedLayerWarning
from pyarrowquant.recipe import Recipe

_BIT_WIDTHS = click.Choice(["2", "3", "4", "5", "6", "8"])


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
""",
)
@click.argument("source")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--to", "kind", type=click.Choice(["parquet", "arrow"]), help="Default: by the suffix."
)
@click.option("--bits", type=_BIT_WIDTHS, default="4", show_default=True, help="Bits of a code.")
@click.option("--group-size", type=int, default=128, show_default=True, help="-1: whole rows.")
@click.option("--method", default="mse", show_default=True, help="rtn, mse or hqq.")
@click.option(
    "--zero-point", default="integer", show_default=True, help="integer, float or symmetric."
)
@click.option(
    "--scale-dtype", default="float32", show_default=True, help="float32, float16 or bfloat16."
)
@click.option("--recipe", help="A file, a preset (text, diffusion, vision) or a profile.")
@click.option("--bits-per-weight", type=float, help="Fit bit widths to this budget.")
@click.option("--quality-floor", callback=_floor, help="Least cosine; or relative_error=NUMBER.")
@click.option("--threads", type=int, help="Default: the CPUs of this process.")
@click.option("--continue-on-error", is_flag=True, help="Leave failing layers out.")
@click.option("--overwrite", is_flag=True, help="Replace DESTINATION if it exists.")
@click.option("--dry-run", is_flag=True, help="Check and show what would be done; write nothing.")
@json_option
def quantize(
    source: str,
    destination: Path,
    kind: str | None,
    bits: str,
    group_size: int,
    method: str,
    zero_point: str,
    scale_dtype: str,
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
    only when it is complete.
    """
    check_destination(destination, overwrite)
    kind = format_of(destination, kind)
    settings: dict[str, Any] = {
        "bit_width": int(bits),
        "group_size": group_size,
        "method": method,
        "zero_point": zero_point,
        "scale_dtype": scale_dtype,
    }
    rules = None if recipe is None else recipe_of(recipe)
    if bits_per_weight is not None:
        rules = _fit(source, bits_per_weight, settings, rules, threads)
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
        warnings.simplefilter("always")
        reader = quantize_stream(meter.watch(read_weights(source)), **options)
        for batch in write_batches(reader, destination, kind, overwrite):
            totals.add(batch)
    totals.show(destination, time.perf_counter() - start, as_json)


def _fit(
    source: str,
    bits_per_weight: float,
    settings: dict[str, Any],
    rules: Recipe | None,
    threads: int | None,
) -> Recipe:
    """Fit a recipe to all widths of these settings."""
    candidates = [{**settings, "bit_width": width} for width in (2, 3, 4, 5, 6, 8)]
    return Recipe.fit(
        read_weights(source),
        bits_per_weight,
        candidates,
        recipe=rules,
        threads=threads,
        progress=sys.stderr.isatty(),
    )


def _show_plan(
    source: str,
    destination: Path,
    kind: str,
    settings: dict[str, Any],
    rules: Recipe | None,
    as_json: bool,
) -> None:
    layers = []
    for batch in read_weights(source):
        names, shapes = batch["layer_name"].to_pylist(), batch["shape"].to_pylist()
        for name, shape in zip(names, shapes, strict=True):
            said = {} if rules is None else rules.settings_of(name, shape)
            layers.append({"layer_name": name, "shape": shape, "settings": said})
            if said is not None:
                layers[-1]["settings"] = {**settings, **said}
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

    def add(self, batch: pa.RecordBatch) -> None:
        columns = ("shape", "mse", "relative_error", "scales")
        for row in batch.select(columns).to_pylist() if batch.num_rows else ():
            count = math.prod(row["shape"])
            error = row["mse"] * count
            self._squared_error += error
            if row["relative_error"] > 0:
                self._norm += error / row["relative_error"] ** 2
            self.weights += count
            self.stored_bytes += 8 * len(row["scales"])
        self.layers += batch.num_rows
        self.stored_bytes += sum(len(data.as_buffer()) for data in batch["quantized_data"])

    def show(self, destination: Path, seconds: float, as_json: bool) -> None:
        relative_error = math.sqrt(self._squared_error / self._norm) if self._norm else 0.0
        summary = {
            "destination": str(destination),
            "layers": self.layers,
            "skipped": self.skipped,
            "weights": self.weights,
            "bytes": destination.stat().st_size,
            "bits_per_weight": 8 * self.stored_bytes / self.weights if self.weights else 0.0,
            "relative_error": relative_error,
            "seconds": seconds,
        }
        if as_json:
            show_json(summary)
            return
        click.echo(
            f"{self.layers} layers, {self.weights:,} weights, {summary['bits_per_weight']:.2f} "
            f"bits a weight as stored, relative error {relative_error:.4f}, {seconds:.2f} s"
        )
        if self.skipped:
            click.echo(f"{len(self.skipped)} layers were left out")
        click.echo(f"'{destination}': {size_text(destination.stat().st_size)}")
