"""pyarrowquant evaluate: how well a model predicts text, beside the one it was made from."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import click

from pyarrowquant.cli._progress import Shown
from pyarrowquant.cli._show import counted, json_option, show_json, show_table
from pyarrowquant.evaluation.counting import Evaluation
from pyarrowquant.evaluation.embedding import EmbeddingEvaluation
from pyarrowquant.evaluation.evaluate import evaluate as evaluated


@click.command(
    epilog="""\b
Examples:
  pyarrowquant evaluate model-q4.gguf --text text.txt
  pyarrowquant evaluate model-q4.gguf --against model-f16.gguf --text text.txt
  pyarrowquant evaluate models/llama-w4a16 --against models/llama --text text.txt
  pyarrowquant evaluate bert-4bit.onnx --against bert.onnx --text text.txt
""",
)
@click.argument("result")
@click.option("--against", metavar="REFERENCE", help="The model that RESULT was made from.")
@click.option("--text", required=True, help="A file of UTF-8 text, of thousands of words.")
@click.option(
    "--context", type=click.IntRange(min=8), help="Tokens of a window; default 512 at most."
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: the CPUs of this process.")
@json_option
def evaluate(
    result: str,
    against: str | None,
    text: str,
    context: int | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Let the model RESULT predict a text, or embed it.

    A GGUF file is run by llama.cpp, a folder by transformers, an ONNX model by ONNX Runtime.

    Shows its perplexity; with --against also that of REFERENCE, the Kullback-Leibler divergence
    of the predictions of RESULT from those of REFERENCE, and how often both have the same most
    probable token. The text is cut into windows of --context tokens, as llama-perplexity does it,
    and tokens of the second half of each are predicted.

    Models of folders and of ONNX that give embeddings, such as BERT, need --against: shown are
    the mean and the least of the cosine of both models' embeddings of the paragraphs of the text.
    """
    with Shown(as_json) as shown:
        found = evaluated(
            result,
            text,
            against=against,
            context=context,
            threads=threads,
            progress=partial(shown.tokens, "evaluate"),
        )
    if as_json:
        show_json({"result": result, "reference": against, **asdict(found)})
    elif isinstance(found, EmbeddingEvaluation):
        click.echo(
            f"{counted(found.passages, 'passage')} of up to {found.context:,} tokens: cosine "
            f"{found.cosine:.6f}, the least {found.least_cosine:.6f}"
        )
    else:
        _show(found, result, against)


def _show(found: Evaluation, result: str, against: str | None) -> None:
    rows = [(result, found.perplexity), (against, found.reference_perplexity)]
    show_table(
        ["model", "perplexity"],
        ([name, f"{value:.4f}"] for name, value in rows if name is not None and value is not None),
    )
    of = f"{counted(found.tokens, 'token')} in windows of {found.context:,}"
    if found.divergence is None or found.divergence_99 is None or found.top_agreement is None:
        click.echo(of)
        return
    click.echo(
        f"{of}: KL divergence {found.divergence:.5f} nats, 99th percentile "
        f"{found.divergence_99:.4f}, the same top token {100 * found.top_agreement:.2f} %"
    )
