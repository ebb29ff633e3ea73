"""pyarrowquant compare: the errors of a file of results against the original weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from pyarrowquant import read_weights
from pyarrowquant.cli._originals import Originals
from pyarrowquant.cli._show import counted, json_option, shape_text, show_json, show_table
from pyarrowquant.conversion.result_files import naming, results_in
from pyarrowquant.conversion.source import is_result


@click.command(
    epilog="""\b
Examples:
  pyarrowquant compare model.safetensors quantized.parquet
  pyarrowquant compare model.safetensors decoded.npz --worst 5
""",
)
@click.argument("original")
@click.argument("result")
@click.option("--worst", type=click.IntRange(min=1), help="Show only so many, the worst first.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: the CPUs of this process.")
@json_option
def compare(
    original: str, result: str, worst: int | None, threads: int | None, as_json: bool
) -> None:
    """Show the error of each layer of RESULT against ORIGINAL.

    RESULT is a file of results, or of weights decoded elsewhere.
    """
    originals = Originals(original)
    decoded = (
        (batch for batch, _ in results_in(Path(result)))
        if is_result(result)
        else read_weights(result)
    )
    errors: list[dict[str, Any]] = []
    names: set[str] = set()
    for batch in decoded:
        with naming(result, original):
            measured = originals.errors(batch, threads)
        for layer in measured:
            if layer["layer_name"] in names:
                raise click.ClickException(f"Layer '{layer['layer_name']}' is in '{result}' twice")
            names.add(layer["layer_name"])
            errors.append(layer)
    totals = _totals(errors)
    totals["missing"] = originals.left_out(names)
    shown = errors
    if worst is not None:
        shown = sorted(errors, key=lambda layer: -layer["relative_error"])[:worst]
    if as_json:
        show_json({"layers": shown, "totals": totals})
        return
    show_table(
        ["layer", "shape", "rel. error", "cosine", "max error", "SNR dB"],
        (
            [
                layer["layer_name"],
                shape_text(layer["shape"]),
                f"{layer['relative_error']:.5f}",
                f"{layer['cosine']:.6f}",
                f"{layer['max_abs_error']:.4g}",
                f"{layer['signal_to_noise_db']:.1f}",
            ]
            for layer in shown
        ),
    )
    click.echo(
        f"{counted(totals['layers'], 'layer')}, {counted(totals['weights'], 'weight')}, "
        "relative error "
        f"{totals['relative_error']:.5f}"
    )
    if totals["missing"]:
        missing = totals["missing"]
        are = "is" if len(missing) == 1 else "are"
        click.echo(f"{counted(len(missing), 'layer')} of '{original}' {are} not in '{result}'")


def _totals(errors: list[dict[str, Any]]) -> dict[str, Any]:
    squared_error = norm = 0.0
    weights = 0
    for layer in errors:
        count = math.prod(layer["shape"])
        weights += count
        squared_error += layer["mse"] * count
        norm += layer["norm"] ** 2
    relative_error = math.sqrt(squared_error / norm) if norm else 0.0
    return {"layers": len(errors), "weights": weights, "relative_error": relative_error}
