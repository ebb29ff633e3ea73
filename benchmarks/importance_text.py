"""Measure how much importance depends on the text that it comes from.

    python benchmarks/importance_text.py [--text FILE] [--only PATTERN] [--markdown FILE]

Parts of the text of `calibrate`, or of another one, give an importance each, with which `mse`
quantizes the linear layers of a language model: KL divergence from the float model, measured on
other text as in judged.py.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from float_folder import float_folder
from judge import Judge
from judged import PREDICTIONS
from language_models import text
from own import own
from quantizer import THREADS, Weights

from pyarrowquant import calibrate, read_importance
from pyarrowquant.calibration.texts import texts_in

MODEL = "SmolLM2 135M"
CONTEXT = 512
ZERO_POINTS = ("integer", "symmetric")
MANY = 1 << 20  # more tokens than the text has


@dataclass(frozen=True)
class Part:
    """Paragraphs of a text, and at most how many tokens of them are used."""

    name: str
    paragraphs: list[str]
    tokens: int = MANY


def parts_of(content: str) -> Iterator[Part]:
    paragraphs = content.split("\n\n")
    ends = np.cumsum([len(each.encode()) for each in paragraphs])
    middle = int(np.searchsorted(ends, ends[-1] / 2))
    yield Part("one window", paragraphs, CONTEXT)
    yield Part("four windows, from all parts", paragraphs, 4 * CONTEXT)
    yield Part("the first half of the text", paragraphs[:middle])
    yield Part("the second half", paragraphs[middle:])
    yield Part("every other paragraph", paragraphs[::2])
    yield Part("the other paragraphs", paragraphs[1::2])
    yield Part("all of it", paragraphs)


def importance_of(part: Part, model: Path, folder: Path) -> tuple[int, Weights]:
    source, target = folder / "part.txt", folder / "importance.safetensors"
    source.write_text("\n\n".join(part.paragraphs))
    done = calibrate(
        model,
        target,
        [source],
        tokens=part.tokens,
        context=CONTEXT,
        threads=THREADS,
        overwrite=True,
    )
    rows = read_importance(target).to_pylist()
    return done.tokens, {row["layer_name"]: np.float32(row["importance"]) for row in rows}


def row(name: str, tokens: int, judge: Judge, importance: Weights | None) -> str:
    found = []
    for zero_point in ZERO_POINTS:
        quantizer = own("mse", 4, zero_point, 64, importance=importance).prepare(judge.linear)
        found.append(judge.compared(quantizer.decode(quantizer.call())).divergence)
    line = f"| {name} | {tokens:,} | {' | '.join(f'{each:.4f}' for each in found)} |"
    print(line, flush=True)
    return line


def rows(content: str, only: str, folder: Path) -> Iterator[str]:
    path = float_folder(MODEL, folder)
    judge = Judge(path, text(), PREDICTIONS)
    ones = {name: np.ones(one.shape[1], np.float32) for name, one in judge.linear.items()}
    for name, importance in (("all columns the same", ones), ("the tails of columns", None)):
        if re.search(only, name):
            yield row(name, 0, judge, importance)
    for part in parts_of(content):
        if re.search(only, part.name):
            tokens, found = importance_of(part, path, folder)
            yield row(part.name, tokens, judge, {name: found[name] for name in judge.linear})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, help="instead of that of calibrate")
    parser.add_argument("--only", default="", help="parts in whose names this is found")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    content = texts_in([options.text] if options.text else [])[0].content
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            f"| importance from | tokens | {' | '.join(ZERO_POINTS)} |",
            "|---|---|---|---|",
            *rows(content, options.only, Path(folder)),
            "",
        ]
    if options.markdown:
        options.markdown.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
