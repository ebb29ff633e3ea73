"""pyarrowquant report: a file of results, or two, as a page to look at."""

from __future__ import annotations

from pathlib import Path

import click

from pyarrowquant.cli._originals import Originals, is_of_llama_cpp
from pyarrowquant.cli._read_files import ReadFiles
from pyarrowquant.cli._report.beside import Side
from pyarrowquant.cli._report.evaluation import read_evaluation
from pyarrowquant.cli._report.histograms import histogram
from pyarrowquant.cli._report.layers import Read, read_layers, read_model
from pyarrowquant.cli._report.page import Report, check_installed, render, totals_of
from pyarrowquant.cli._show import counted, json_option, quoted_path, show_json, size_text
from pyarrowquant.conversion.destination import check_destination
from pyarrowquant.conversion.source import is_result, local_path, size_of
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.models import open_model

_HISTOGRAMS = 6


@click.command(
    epilog="""\b
Examples:
  pyarrowquant report quantized.parquet --html report.html
  pyarrowquant report quantized.parquet --html report.html --original model.safetensors
  pyarrowquant report 4bit.parquet 3bit.parquet --html report.html
  pyarrowquant report model.gguf --original models/llama --html report.html --evaluation e.json
""",
)
@click.argument("result", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@click.option(
    "--html", "page", type=click.Path(path_type=Path), required=True, help="The file to write."
)
@click.option("--original", help="The model before: measure errors anew, show its weights.")
@click.option(
    "--evaluation",
    type=click.Path(path_type=Path),
    help="What `evaluate --json` printed, to be shown.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: the CPUs of this process.")
@click.option("--overwrite", is_flag=True, help="Replace the page if it exists.")
@json_option
def report(
    result: Path,
    other: Path | None,
    page: Path,
    original: str | None,
    evaluation: Path | None,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a page of charts and tables about RESULT: errors, bits and sizes of its layers.

    RESULT is a table of results or a folder of them, or a quantized model, which needs --original.
    With OTHER, a result of the same model, the page has both beside each other. The page is one
    file that needs no network.
    """
    sources: list[Path | str] = [result] if other is None else [result, other]
    if original is not None:
        sources.append(local_path(original))
    files = ReadFiles(*sources)
    evaluations = [] if evaluation is None else [evaluation]
    check_destination(page, overwrite, sources=[*files.paths, *evaluations])
    check_installed()
    for path in (result, other):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"'{path}' does not exist")
    evaluated = None if evaluation is None else read_evaluation(evaluation)
    with files.reading():
        originals = _originals(result, original)
        llama_cpp = other is not None and (_is_of_llama_cpp(result) or _is_of_llama_cpp(other))
        read = _read(result, original, originals, threads, _HISTOGRAMS, llama_cpp)
        beside = None
        if other is not None:
            found = _read(other, original, _originals(other, original), threads, 0, llama_cpp)
            beside = _side(other, found)
        shown = Report(
            side=_side(result, read),
            other=beside,
            original=original,
            original_bytes=None if original is None else size_of(original),
            histograms=[histogram(layer, packed, originals) for layer, packed in read.worst],
            left_out=read.left_out,
            evaluation=evaluated,
        )
    with Outputs([page], overwrite) as outputs:
        outputs.temporary(page).write_text(render(shown), encoding="utf-8", newline="\n")
        files.check()
    totals = totals_of(shown.side.layers)
    nbytes = page.stat().st_size
    if as_json:
        of_other = {} if beside is None else {"other": totals_of(beside.layers)}
        show_json({"destination": str(page), **totals, "bytes": nbytes, **of_other})
        return
    click.echo(
        f"{counted(totals['layers'], 'layer')}, {counted(totals['weights'], 'weight')}, "
        f"{totals['bits_per_weight']:.2f} bits a weight, "
        f"relative error {totals['relative_error']:.4f}"
    )
    click.echo(f"{quoted_path(page)}: {size_text(nbytes)}")


def _originals(path: Path, original: str | None) -> Originals | None:
    """Return the original weights of a table of results."""
    return Originals(original) if original is not None and is_result(str(path)) else None


def _is_of_llama_cpp(path: Path) -> bool:
    return path.suffix.lower() == ".gguf" and is_of_llama_cpp(open_model(locate(path, None)))


def _read(
    path: Path,
    original: str | None,
    originals: Originals | None,
    threads: int | None,
    worst: int,
    llama_cpp: bool,
) -> Read:
    if is_result(str(path)):
        read = read_layers(path, originals, threads, worst)
    else:
        read = read_model(path, original, threads, llama_cpp)
    if not read.layers:
        raise click.ClickException(f"'{path}' has no layers")
    return read


def _side(path: Path, read: Read) -> Side:
    return Side(str(path), size_of(str(path)) or 0, read.settings, read.layers)
