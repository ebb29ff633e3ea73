"""pyarrowquant quantize: a model file or folder in, quantized files out."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from pyarrowquant import quantize_stream, read_weights
from pyarrowquant._core.settings import BIT_WIDTHS
from pyarrowquant.cli._memory import batch_bytes, memory_size
from pyarrowquant.cli._show import json_option, printable, show_json
from pyarrowquant.cli.recipe import file_of, recipe_of
from pyarrowquant.conversion.destination import SUFFIXES, check_destination, format_of
from pyarrowquant.conversion.job import Job
from pyarrowquant.conversion.result_files import TABLES
from pyarrowquant.conversion.source import local_files, local_path, refuse_quantized
from pyarrowquant.conversion.targets import (
    FOLDERS,
    FORMATS,
    check_planned,
    defaults,
    planned,
    with_kept,
    with_ragged_kept,
)
from pyarrowquant.conversion.work import is_complete, recover
from pyarrowquant.recipes.recipe import Recipe

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
  pyarrowquant quantize models/llama llama-4bit --to compressed-tensors
  pyarrowquant quantize models/llama llama-mlx --to mlx --recipe text
  pyarrowquant quantize model.safetensors model.gguf --recipe text
""",
)
@click.argument("source")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--to", "kind", type=click.Choice(FORMATS), help="Default: by the suffix.")
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
@click.option(
    "--max-memory",
    callback=memory_size,
    default="600M",
    show_default=True,
    help="Bound on memory beyond mapped files, such as 400M or 2G.",
)
@click.option("--continue-on-error", is_flag=True, help="Leave failing layers out.")
@click.option("--resume", is_flag=True, help="Go on from what an interrupted run has done.")
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
    max_memory: int,
    continue_on_error: bool,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Quantize the weights of SOURCE and write them to DESTINATION.

    SOURCE is a safetensors file, a model folder, an ONNX or GGUF model, Parquet, Arrow or npz.
    DESTINATION gets its name only when it is complete. It is a folder for compressed-tensors and
    mlx, and for parquet and arrow without a suffix, which then has a file for each file of SOURCE.

    Defaults are what the format holds: groups of 128, 64 for mlx, 32 for gguf; integer zero-points,
    symmetric for compressed-tensors and gguf; scales of float32, float16 for mlx and gguf, the
    model's dtype for compressed-tensors, which without --recipe also leaves out what the preset
    text does; a GGUF model's embeddings and head get 8 bits. Layers that are not quantized are
    kept, but by parquet and arrow, and by onnx if SOURCE is no ONNX model.

    What an interrupted run has done stays in a hidden folder beside DESTINATION. The same command
    with --resume goes on from it, and gives the same bytes as if nothing had happened.
    """
    kind = format_of(destination, kind, SUFFIXES)
    folder = kind in FOLDERS or (
        kind in TABLES.values() and destination.suffix.lower() not in TABLES
    )
    source = local_path(source)
    place = Path(os.path.realpath(destination))  # what is written lies where links lead
    complete = is_complete(place) if dry_run else recover(place)
    files = [*local_files(source), *file_of(recipe)]
    if not (resume and complete):
        check_destination(destination, overwrite, folder, files)
    refuse_quantized(source)
    said = {
        "bit_width": None if bits is None else int(bits),
        "group_size": group_size,
        "method": method,
        "zero_point": zero_point,
        "scale_dtype": scale_dtype,
    }
    settings: dict[str, Any] = {
        **defaults(kind, source),
        **{field: value for field, value in said.items() if value is not None},
    }
    rules = with_kept(kind, source, None if recipe is None else recipe_of(recipe))
    if bits_per_weight is not None and bits is not None:
        raise click.UsageError("--bits and --bits-per-weight exclude each other")
    mixed = bits_per_weight is not None or quality_floor is not None
    if kind == "compressed-tensors" and mixed and settings["zero_point"] != "symmetric":
        raise click.UsageError(
            "transformers loads layers of different bits only with --zero-point symmetric"
        )
    # This checks schema and arguments.
    quantize_stream(read_weights(source), **settings, recipe=rules, quality_floor=quality_floor)
    job = Job(
        source,
        files,
        place,
        kind,
        folder,
        settings,
        _with_ragged_kept(kind, source, settings, rules),
        bits_per_weight,
        quality_floor,
        continue_on_error,
        threads,
        batch_bytes(max_memory),
        overwrite,
    )
    check_planned(kind, source, settings, job.recipe)
    if dry_run:
        _show_plan(job, as_json)
        return
    start = time.perf_counter()
    totals = job.run(resume)
    totals.show(destination, kind, time.perf_counter() - start, as_json)


def _with_ragged_kept(
    kind: str, source: str, settings: dict[str, Any], rules: Recipe | None
) -> Recipe | None:
    """Leave out, and say so, layers that the format does not take for their shape."""
    rules, names = with_ragged_kept(kind, planned(source, settings, rules) or [], rules)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        some = printable(", ".join(names[:3]))
        click.echo(f"Kept, as the format does not take their shape: {some}{more}", err=True)
    return rules


def _show_plan(job: Job, as_json: bool) -> None:
    layers = planned(job.source, job.settings, job.fitted(), read=True) or []
    wanted = [layer for layer in layers if layer.settings is not None]
    if as_json:
        rows = [
            {"layer_name": layer.name, "shape": layer.shape, "settings": layer.settings}
            for layer in layers
        ]
        show_json({"destination": str(job.destination), "format": job.kind, "layers": rows})
        return
    widths: dict[int, int] = {}
    for layer in wanted:
        assert layer.settings is not None
        width = layer.settings["bit_width"]
        widths[width] = widths.get(width, 0) + 1
    click.echo(f"{len(wanted)} of {len(layers)} layers would be quantized to '{job.destination}'")
    for width in sorted(widths):
        click.echo(f"  {widths[width]} with {width} bits")
