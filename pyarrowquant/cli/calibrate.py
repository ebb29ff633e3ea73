"""pyarrowquant calibrate: which columns of a model's layers matter, measured on text."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import click

from pyarrowquant.calibration.calibrate import calibrate as calibrated
from pyarrowquant.cli._progress import Shown
from pyarrowquant.cli._show import counted, json_option, listed, quoted_path, show_json


@click.command(
    epilog="""\b
Examples:
  pyarrowquant calibrate models/llama importance.safetensors
  pyarrowquant calibrate models/llama letters.txt code.txt importance.safetensors
  pyarrowquant quantize models/llama llama.gguf --importance importance.safetensors
""",
)
@click.argument("model")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.argument("importance")
@click.option(
    "--tokens",
    type=click.IntRange(min=256),
    default=32_768,
    show_default=True,
    help="The most that are used, from all parts of the texts.",
)
@click.option(
    "--context", type=click.IntRange(min=8), help="Tokens of a window; default 512 at most."
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: the CPUs of this process.")
@click.option("--resume", is_flag=True, help="Go on from what an interrupted run has done.")
@click.option("--overwrite", is_flag=True, help="Replace IMPORTANCE if it exists.")
@json_option
def calibrate(
    model: str,
    texts: tuple[str, ...],
    importance: str,
    tokens: int,
    context: int | None,
    threads: int | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Run a model of a Hugging Face folder, or an ONNX model, on text, to find out what matters.

    Writes the mean squares of the inputs of each column of its layers to the file IMPORTANCE
    (.safetensors), which `quantize --importance` takes for any format. Without a TEXT, one that
    comes with the package is used: prose, dialogue, tables and code in many languages. Of a
    folder, memory holds one layer of the model at a time, as float32.
    """
    with Shown(as_json) as shown:
        done = calibrated(
            model,
            importance,
            texts,
            tokens=tokens,
            context=context,
            threads=threads,
            resume=resume,
            overwrite=overwrite,
            progress=partial(shown.tokens, "calibrate"),
        )
    if as_json:
        show_json({**asdict(done), "destination": str(done.destination)})
        return
    click.echo(
        f"{quoted_path(done.destination)}: the importance of {counted(done.layers, 'layer')}, from "
        f"{counted(done.tokens, 'token')} of {listed(done.texts)}"
    )
    if done.unused:
        click.echo(
            "No token came to these, which get the importance of those beside them: "
            f"{listed(done.unused)}"
        )
    if done.without:
        click.echo(
            "Without importance, as text does not come to them, or they are no linear layers: "
            f"{listed(done.without)}"
        )
