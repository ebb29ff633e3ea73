"""pyarrowquant quantize: a model file or folder in, quantized files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pyarrowquant._core.encodings import ENCODING_NAMES, INTEGER
from pyarrowquant._core.group_sizes import (
    BLOCK,
    SHARED,
    TENSOR,
    GroupSize,
    grouping_text,
    size_order,
)
from pyarrowquant._core.quoting import first_names, printable
from pyarrowquant._core.settings import BIT_WIDTHS
from pyarrowquant._core.underflow import underflow_text
from pyarrowquant.cli._memory import memory_size
from pyarrowquant.cli._progress import Shown
from pyarrowquant.cli._show import counted, json_option, show_json, size_text
from pyarrowquant.conversion.convert import Conversion, ConversionPlan, convert, plan
from pyarrowquant.conversion.engines import ENGINES
from pyarrowquant.conversion.partial.interrupted import Continued
from pyarrowquant.conversion.unquantized import UnquantizedTensor
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.recipes.rule import rule_label

_WIDTHS = click.Choice([str(width) for width in BIT_WIDTHS])


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
@click.option("--to", "kind", type=click.Choice(list(FORMATS)), help="Default: by the suffix.")
@click.option("--bits", type=_WIDTHS, help="Bits of a code; default 4.")
@click.option(
    "--group-size",
    metavar="SIZE",
    callback=_group_size,
    help=f"-1: whole rows; of fp8 also {TENSOR} or {BLOCK}; default as the format has it.",
)
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
    type=click.Choice(["off", "on", "auto"]),
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
def quantize(
    source: str,
    destination: str,
    kind: str | None,
    bits: str | None,
    group_size: int | str | None,
    method: str | None,
    zero_point: str | None,
    scale_dtype: str | None,
    encoding: str | None,
    recipe: str | None,
    bits_per_weight: float | None,
    size: int | None,
    split: int | None,
    quality_floor: dict[str, float] | None,
    importance: str | None,
    double: bool,
    tensors_only: bool,
    rescale: str,
    pre_tokenizer: str | None,
    threads: int | None,
    engine: str,
    address: str | None,
    max_memory: int,
    continue_on_error: bool,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
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
    options: dict[str, Any] = {
        "to": kind,
        "bit_width": None if bits is None else int(bits),
        "group_size": group_size,
        "method": method,
        "zero_point": zero_point,
        "scale_dtype": scale_dtype,
        "encoding": encoding,
        "recipe": recipe,
        "bits_per_weight": bits_per_weight,
        "size": size,
        "split": split,
        "quality_floor": quality_floor,
        "importance": importance,
        "double": double,
        "tensors_only": tensors_only,
        "rescale": rescale,
        "pre_tokenizer": pre_tokenizer,
        "threads": threads,
        "engine": engine,
        "address": address,
        "max_memory": max_memory,
        "continue_on_error": continue_on_error,
        "resume": resume,
        "overwrite": overwrite,
    }
    with Shown() as shown:
        if dry_run:
            found = plan(source, destination, **options, progress=shown)
            _show_plan(found, resume, as_json)
        else:
            done = convert(source, destination, **options, progress=shown)
            _show(done, as_json)
            if done.missed and not continue_on_error:
                raise click.exceptions.Exit(1)


def _show(done: Conversion, as_json: bool) -> None:
    if as_json:
        summary = {
            "destination": str(done.destination),
            "mix": done.mix,
            "mix_is_changed": done.mix_is_changed,
            "layers": done.layers,
            "skipped": done.skipped,
            "missed": done.missed,
            "underflows": [asdict(layer) for layer in done.underflows],
            "weights": done.weights,
            "bytes": done.bytes,
            "bits_per_weight": done.bits_per_weight,
            "model_bits_per_weight": done.model_bits_per_weight,
            "relative_error": done.relative_error,
            "seconds": done.seconds,
            "source_bytes": done.source_bytes,
            "unquantized": [asdict(tensor) for tensor in done.unquantized],
            "decoded": done.decoded,
            "tensors_only": done.tensors_only,
        }
        show_json(summary)
        return
    bits = f"{done.bits_per_weight:.2f} bits a weight"
    if any(tensor.kept for tensor in done.unquantized):
        bits += f" ({done.model_bits_per_weight:.2f} over the whole model)"
    as_mix = _mix_text(done)
    click.echo(
        f"{counted(done.layers, 'layer')}{as_mix}, {counted(done.weights, 'weight')}, {bits}, "
        f"relative error {done.relative_error:.4f}, {done.seconds:.2f} s"
    )
    if done.skipped:
        click.echo(f"{counted(len(done.skipped), 'layer')} failed")
    if done.underflows:
        click.echo(printable(underflow_text(done.underflows)))
    _show_rest(done)
    before = "" if done.source_bytes is None else f"{size_text(done.source_bytes)} -> "
    click.echo(f"'{done.destination}': {before}{size_text(done.bytes)}")


def _mix_text(shown: Conversion | ConversionPlan) -> str:
    if shown.mix is None:
        return ""
    return f" as {shown.mix}{' with changes' if shown.mix_is_changed else ''}"


def _show_plan(shown: ConversionPlan, resume: bool, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "layer_name": layer.name,
                "shape": layer.shape,
                "settings": None if layer.settings is None else asdict(layer.settings),
                "rule": None if layer.rule is None else layer.rule.said,
            }
            for layer in shown.layers
        ]
        show_json(
            {
                "destination": str(shown.destination),
                "format": shown.to,
                "mix": shown.mix,
                "mix_is_changed": shown.mix_is_changed,
                "layers": rows,
                "unquantized": [asdict(tensor) for tensor in shown.unquantized],
                "continued": None if shown.continued is None else asdict(shown.continued),
                "decoded": shown.decoded,
                "source_bytes": shown.source_bytes,
                "tensors_only": shown.tensors_only,
                "files": [asdict(file) for file in shown.files],
            }
        )
        return
    if resume:
        click.echo(_continued_text(shown.continued))
    groups: dict[tuple[int, GroupSize, str, str], list[str]] = {}
    for layer in shown.layers:
        if layer.settings is not None:
            label = "" if layer.rule is None else rule_label(layer.rule.said)
            settings = layer.settings
            key = settings.bit_width, settings.group_size, settings.encoding, label
            groups.setdefault(key, []).append(str(layer.name))
    count = sum(map(len, groups.values()))
    as_mix = _mix_text(shown)
    click.echo(
        f"{count} of {len(shown.layers)} layers would be quantized{as_mix} to '{shown.destination}'"
    )
    for (width, group_size, encoding, label), names in sorted(groups.items(), key=_order):
        of = "" if encoding == INTEGER else f" of {encoding}"
        by = f", by {label[0].lower()}{label[1:]}" if label else ""
        how = f"{width} bits{of} in {grouping_text(group_size)}{printable(by)}"
        click.echo(f"  {len(names)} with {how}: {_some(names)}")
    _show_rest(shown)
    for file in shown.files:
        click.echo(f"'{_beside(shown.destination, file.name)}': {size_text(file.bytes)}")


def _beside(destination: Path | str, name: str) -> Path | str:
    if isinstance(destination, Path):
        return destination.with_name(name)
    return f"{destination.rpartition('/')[0]}/{name}"


def _order(item: tuple[tuple[int, GroupSize, str, str], list[str]]) -> tuple[Any, ...]:
    width, group_size, *others = item[0]
    return width, size_order(group_size), others


def _continued_text(found: Continued | None) -> str:
    if found is None:
        return "There is no interrupted run to go on from: a new one would begin"
    if found.is_complete:
        return "An interrupted run is complete: it would only get its place"
    return f"An interrupted run would go on: {size_text(found.bytes)} of weights are done"


def _show_rest(shown: Conversion | ConversionPlan) -> None:
    """Say what else a person is to know of an output, beside its layers."""
    _show_decoded(shown.decoded)
    _show_unquantized(shown.unquantized)
    left = sum(tensor.bytes for tensor in shown.unquantized if not tensor.is_quantized_already)
    if shown.source_bytes is not None and 2 * left > shown.source_bytes:
        click.echo(f"Less than half of the model is quantized: {size_text(left)} are not")
    if shown.tensors_only:
        click.echo(f"Tensors alone, which {FORMATS[shown.to].engine} does not load as a model")


def _show_decoded(decoded: Mapping[str, int]) -> None:
    if decoded:
        listed = ", ".join(
            f"{coding} ({counted(count, 'layer')})" for coding, count in decoded.items()
        )
        click.echo(f"Decoded from {listed}")


def _show_unquantized(tensors: Sequence[UnquantizedTensor]) -> None:
    """Print a line for each reason, what is lost first."""
    groups: dict[tuple[bool, str], list[UnquantizedTensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.kept, tensor.reason), []).append(tensor)
    for (kept, reason), found in sorted(groups.items()):
        some = _some([tensor.name for tensor in found])
        size = size_text(sum(tensor.bytes for tensor in found))
        click.echo(f"{'Kept' if kept else 'Left out'}, {reason}: {some} ({size})")


def _some(names: Sequence[str]) -> str:
    return first_names(names)
