"""pyarrowquant quantize: a model file or folder in, quantized files out."""

from __future__ import annotations

from typing import Any

import click

from pyarrowquant._core.bounds import BIT_WIDTHS, METHODS, SCALE_DTYPES, ZERO_POINTS
from pyarrowquant._core.encodings import ENCODING_NAMES
from pyarrowquant._core.group_sizes import BLOCK, SHARED, TENSOR, GroupSize
from pyarrowquant.cli._conversions import show_conversion, show_plan
from pyarrowquant.cli._memory import memory_size
from pyarrowquant.cli._progress import Shown
from pyarrowquant.cli._show import json_option
from pyarrowquant.conversion.convert import convert, plan
from pyarrowquant.conversion.engines import ENGINES
from pyarrowquant.conversion.rescaling import RESCALES
from pyarrowquant.formats.registry import FORMATS

_WIDTHS = click.Choice([str(width) for width in BIT_WIDTHS])


def _bit_width(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> int | None:
    return None if text is None else int(text)


def _group_size(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> GroupSize | None:
    """Parse a number of columns, or a name."""
    if text is None or text in SHARED:
        return text
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a whole number, {TENSOR!r} or {BLOCK!r}"
        ) from None


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
  pyarrowquant quantize model.npz out.parquet --encoding nf4
  pyarrowquant quantize models/llama llama-4bit --to compressed-tensors
  pyarrowquant quantize models/llama llama-nf4 --to bitsandbytes
  pyarrowquant quantize models/llama llama-mlx --to mlx --recipe text
  pyarrowquant quantize model.safetensors model.gguf --recipe text
  pyarrowquant quantize model-f16.gguf model-Q4_K_M.gguf
  pyarrowquant quantize model-f16.gguf model.gguf --size 4.5G
  pyarrowquant quantize s3://models/llama s3://models/llama-4bit --to mlx
""",
)
@click.argument("source")
@click.argument("destination")
@click.option("--to", type=click.Choice(list(FORMATS)), help="Default: by the suffix.")
@click.option(
    "--bits", "bit_width", type=_WIDTHS, callback=_bit_width, help="Bits of a code; default 4."
)
@click.option(
    "--group-size",
    metavar="SIZE",
    callback=_group_size,
    help=f"-1: whole rows; of fp8 also {TENSOR} or {BLOCK}; default as the format has it.",
)
@click.option("--method", type=click.Choice(METHODS), help="Default mse.")
@click.option(
    "--zero-point",
    type=click.Choice(ZERO_POINTS),
    help="Default as the format has it.",
)
@click.option(
    "--scale-dtype",
    type=click.Choice(SCALE_DTYPES),
    help="Default as the format has it.",
)
@click.option(
    "--encoding",
    type=click.Choice(ENCODING_NAMES, case_sensitive=False),
    help="What codes stand for; it fixes the settings above. Default int.",
)
@click.option(
    "--recipe",
    help="A file, a preset (text, diffusion, vision), a profile, all, a scheme of "
    "compressed-tensors such as FP8_BLOCK, or a mix of llama.cpp such as Q4_K_M for a GGUF model; "
    "`recipe list` has them.",
)
@click.option(
    "--bits-per-weight", type=float, help="Fit bit widths, for gguf types, to this budget."
)
@click.option(
    "--size", callback=memory_size, help="Fit types to this size of the output, such as 4.5G."
)
@click.option(
    "--split", callback=memory_size, help="Split the output into files of this size; for gguf."
)
@click.option("--quality-floor", callback=_floor, help="Least cosine; or relative_error=NUMBER.")
@click.option(
    "--importance",
    "--imatrix",
    "importance",
    help="Importance of columns: a file of calibrate (.safetensors), or of llama-imatrix (.gguf, "
    ".dat).",
)
@click.option(
    "--double", is_flag=True, help="Store scales as codes of 8 bits, too; for bitsandbytes."
)
@click.option(
    "--tensors-only",
    is_flag=True,
    help="Take a model whose tensors alone the format can have, for no engine to load.",
)
@click.option(
    "--rescale",
    type=click.Choice(RESCALES),
    default="off",
    show_default=True,
    help="Move powers of two between layers first, which changes no output.",
)
@click.option(
    "--pre-tokenizer", help="llama.cpp's name for how texts are split, where it is not found out."
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Default: the CPUs of this process; of a cluster's task 1.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="local",
    show_default=True,
    help="What quantizes: this process, or tasks on a cluster.",
)
@click.option("--address", help="Of the cluster; default the one that is found, or one of its own.")
@click.option(
    "--max-memory",
    callback=memory_size,
    default="600M",
    show_default=True,
    help="Bound on memory beyond mapped files, such as 400M or 2G.",
)
@click.option(
    "--continue-on-error", is_flag=True, help="Leave failing layers out; allow a missed floor."
)
@click.option("--resume", is_flag=True, help="Go on from what an interrupted run has done.")
@click.option("--overwrite", is_flag=True, help="Replace DESTINATION if it exists.")
@click.option("--dry-run", is_flag=True, help="Check and show what would be done; write nothing.")
@json_option
def quantize(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Quantize the weights of SOURCE and write them to DESTINATION.

    SOURCE is a safetensors file, a model folder, an ONNX or GGUF model, Parquet, Arrow or npz.
    What of it is quantized already is decoded first. DESTINATION gets its name only when it is
    complete. It is a folder for compressed-tensors, bitsandbytes and mlx, and for parquet and arrow
    without a suffix, which then has a file for each file of SOURCE.

    Defaults are what the format holds best: groups of 128, 32 for gguf, and for compressed-tensors
    and mlx the largest usual ones that fit; integer zero-points, symmetric for compressed-tensors
    and gguf, float for mlx; scales of float32, float16 for gguf, the model's dtype for
    compressed-tensors and mlx; bitsandbytes has nf4 alone. Without --recipe, vectors, norms,
    biases, routers and the like are not quantized, and compressed-tensors and bitsandbytes leave
    out what the preset text does. A GGUF model becomes the mix Q4_K_M of llama.cpp, unless settings
    other than --method are given: then its embeddings and head get 8 bits. What is not quantized is
    named. It is kept, but by parquet and arrow, and by onnx if SOURCE is no ONNX model.

    Both may be URIs, such as s3://bucket/model; a file then gets its name in the store when it is
    whole, and config.json comes last.

    What an interrupted run has done stays in a hidden folder beside DESTINATION. The same command
    with --resume goes on from it, and gives the same bytes as if nothing had happened.
    """
    with Shown(as_json) as shown:
        if dry_run:
            show_plan(plan(**options, progress=shown), options["resume"], as_json)
        else:
            done = convert(**options, progress=shown)
            show_conversion(done, as_json)
            if done.missed and not options["continue_on_error"]:
                raise click.exceptions.Exit(1)
