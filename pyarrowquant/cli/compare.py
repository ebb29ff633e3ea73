"""pyarrowquant compare: the errors of a quantized model against the original weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from pyarrowquant._core.quoting import in_line, printable
from pyarrowquant.cli._originals import Originals, undecodable
from pyarrowquant.cli._read_files import ReadFiles
from pyarrowquant.cli._show import (
    counted,
    json_option,
    listed,
    quoted_path,
    shape_text,
    show_json,
    show_table,
)
from pyarrowquant.conversion.result_files import check_rows, naming, results_in
from pyarrowquant.conversion.source import is_result
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.models import open_model


@click.command(
    epilog="""\b
Examples:
  pyarrowquant compare model.safetensors quantized.parquet
  pyarrowquant compare model-f16.gguf model-q4.gguf --worst 5
""",
)
@click.argument("original")
@click.argument("result")
@click.option("--worst", type=click.IntRange(min=1), help="Show only so many, the worst first.")
@click.option(
    "--allow-missing", is_flag=True, help="Layers that only one of the two has are no failure."
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: the CPUs of this process.")
@json_option
def compare(
    original: str,
    result: str,
    worst: int | None,
    allow_missing: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Show the error of each layer of RESULT against ORIGINAL.

    Both are model files or folders, quantized or not, or tables of results. What is quantized is
    decoded. The exit code is 1 where one has layers that the other lacks.
    """
    read = ReadFiles(original, result)
    model = None if is_result(result) else open_model(locate(result, None))
    originals = Originals(original, model)
    model = originals.result
    if model is None:
        check_rows(Path(result))
        batches = _rows_of(result)
    else:
        model.check_names(need_names=True)
        batches = iter(model.reader())
    unread = {} if model is None else undecodable(model)
    errors: list[dict[str, Any]] = []
    names: set[str] = set()
    for batch in batches:
        with read.reading(), naming(result, original):
            for part in _known(batch, originals):
                errors += originals.errors(part, threads)
        names.update(batch["layer_name"].to_pylist())
    read.check()
    totals = _totals(errors)
    totals["missing"] = originals.left_out(names)
    totals["added"] = sorted(name for name in names if name not in originals)
    totals["undecodable"] = {**originals.undecodable, **unread}
    failed = any(totals[key] for key in ("missing", "added", "undecodable")) and not allow_missing
    shown = errors
    if worst is not None:
        shown = sorted(errors, key=lambda layer: -layer["relative_error"])[:worst]
    if as_json:
        show_json({"layers": shown, "totals": totals})
    else:
        _show(shown, totals, original, result)
    if names and not errors:
        raise click.ClickException(f"'{original}' and '{result}' have no layer in common")
    if failed:
        raise click.ClickException(
            f"'{original}' and '{result}' do not have the same layers: "
            f"{len(totals['missing'])} only in the first, {len(totals['added'])} only in the "
            f"second, {len(totals['undecodable'])} that cannot be decoded; --allow-missing "
            "compares the layers of both"
        )


def _rows_of(result: str) -> Iterator[pa.RecordBatch]:
    """Give the rows of results, which need not be decoded as a whole."""
    return (batch for batch, _ in results_in(Path(result)))


def _known(batch: pa.RecordBatch, originals: Originals) -> list[pa.RecordBatch]:
    """Leave out rows that the original does not have, by slices."""
    names = batch["layer_name"].to_pylist()
    known = [name in originals for name in names]
    if all(known):
        return [batch]
    return [batch.slice(row, 1) for row, is_known in enumerate(known) if is_known]


def _show(shown: list[dict[str, Any]], totals: dict[str, Any], original: str, result: str) -> None:
    show_table(
        ["layer", "shape", "rel. error", "cosine", "max error", "SNR dB"],
        (
            [
                in_line(layer["layer_name"]),
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
    for names, one, other in (
        (totals["missing"], original, result),
        (totals["added"], result, original),
    ):
        if names:
            are = "is" if len(names) == 1 else "are"
            click.echo(
                f"{counted(len(names), 'layer')} of {quoted_path(one)} {are} not in "
                f"{quoted_path(other)}: {listed(names)}"
            )
    for name, problem in totals["undecodable"].items():
        click.echo(f"Not compared: {in_line(name)}, {printable(problem)}")


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
