"""pyarrowquant report: a file of results as a page to look at."""

from __future__ import annotations

from pathlib import Path

import click

from pyarrowquant.cli._originals import Originals
from pyarrowquant.cli._report.histograms import histogram
from pyarrowquant.cli._report.layers import read_layers, read_model
from pyarrowquant.cli._report.page import Report, check_installed, render
from pyarrowquant.cli._show import counted, json_option, show_json, size_text
from pyarrowquant.conversion.destination import check_destination
from pyarrowquant.conversion.source import is_result, local_files, local_path, size_of
from pyarrowquant.formats._outputs import Outputs

_HISTOGRAMS = 6


@click.command(
    epilog="""\b
Examples:
  pyarrowquant report quantized.parquet --html report.html
  pyarrowquant report quantized.parquet --html report.html --original model.safetensors
""",
)
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--html", "page", type=click.Path(path_type=Path), required=True, help="The file to write."
)
@click.option("--original", help="The model before: measure errors anew, show its weights.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: the CPUs of this process.")
@click.option("--overwrite", is_flag=True, help="Replace the page if it exists.")
@json_option
def report(
    result: Path,
    page: Path,
    original: str | None,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a page of charts and tables about RESULT: errors, bits and sizes of its layers.

    RESULT is a table of results or a folder of them, or a quantized model, which needs --original.
    The page is one file that needs no network.
    """
    sources: list[Path | str] = [result]
    if original is not None:
        sources.append(local_path(original))
    check_destination(
        page, overwrite, sources=[file for source in sources for file in local_files(source)]
    )
    check_installed()
    if not result.exists():
        raise FileNotFoundError(f"'{result}' does not exist")
    originals = None if original is None else Originals(original)
    if is_result(str(result)):
        read = read_layers(result, originals, threads, _HISTOGRAMS)
    else:
        read = read_model(result, originals, threads)
    if not read.layers:
        raise click.ClickException(f"'{result}' has no layers")
    shown = Report(
        result=str(result),
        original=original,
        file_bytes=size_of(str(result)) or 0,
        original_bytes=None if original is None else size_of(original),
        settings=read.settings,
        layers=read.layers,
        histograms=[histogram(layer, packed, originals) for layer, packed in read.worst],
        left_out=(
            [] if originals is None else originals.left_out(one.layer_name for one in read.layers)
        ),
    )
    with Outputs([page], overwrite) as outputs:
        outputs.temporary(page).write_text(render(shown), encoding="utf-8")
    totals = shown.totals()
    nbytes = page.stat().st_size
    if as_json:
        show_json({"destination": str(page), **totals, "bytes": nbytes})
        return
    click.echo(
        f"{counted(totals['layers'], 'layer')}, {counted(totals['weights'], 'weight')}, "
        f"{totals['bits_per_weight']:.2f} bits a weight, "
        f"relative error {totals['relative_error']:.4f}"
    )
    click.echo(f"'{page}': {size_text(nbytes)}")
