"""Measure what quantizers at about 4 bits do to the predictions of language models.

    python benchmarks/judged.py [--only PATTERN] [--model TEXT] [--json FILE] [--markdown FILE]

Methods of this package and of others get the same float models: those of language_models.py, as
Hugging Face folders. All linear layers are quantized, embeddings and heads are not. Decoded weights
are put back into the model, which transformers runs in float32: KL divergence from the float
model and perplexity, on the same text. Those that see a text get that of `calibrate`. A model or a
quantizer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from float_folder import float_folder
from judge import Judge
from judged_own import own_candidates
from judged_peers import peer_candidates
from judged_report import Judged, Reference, markdown
from language_models import text
from machine import describe
from quantizer import UnavailableError
from subject import Subject

# Sizes of groups that divide the columns of all layers; larger ones are for two numbers a group.
GROUP_SIZES: dict[str, tuple[int, int | None]] = {
    "SmolLM2 135M": (64, None),
    "Gemma 3 270M": (64, 128),
}
PREDICTIONS = 1_500


def judged(model: str, only: str, judge: Judge, subject: Subject) -> Iterator[Judged]:
    sizes = GROUP_SIZES[model]
    left_out = set()
    for candidate in chain(own_candidates(*sizes), peer_candidates(*sizes)):
        if not re.search(only, f"{candidate.maker} {candidate.settings}"):
            continue
        try:
            outcome = candidate.quantize(subject)
        except (ImportError, UnavailableError) as reason:
            if (candidate.maker, str(reason)) not in left_out:
                left_out.add((candidate.maker, str(reason)))
                print(f"{candidate.maker}: left out, {reason}", flush=True)
            continue
        found = judge.compared(outcome.weights)
        yield Judged(
            model=model,
            maker=candidate.maker,
            settings=candidate.settings,
            calibrated=candidate.calibrated,
            bits=outcome.bits,
            divergence=found.divergence,
            top_agreement=found.top_agreement,
            perplexity=found.perplexity,
            seconds=outcome.seconds,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="candidates in whose names this is found")
    parser.add_argument("--model", default="", help="models whose names contain this text")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    parser.add_argument("--markdown", type=Path, help="write tables to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found: list[Judged] = []
    references: dict[str, Reference] = {}
    for model in filter(lambda name: options.model in name, GROUP_SIZES):
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = float_folder(model, Path(folder))
            except ImportError as reason:
                print(f"{model}: left out, {reason}", flush=True)
                continue
            judge = Judge(path, text(), PREDICTIONS)
            references[model] = Reference(judge.perplexity, judge.tokens)
            for each in judged(model, options.only, judge, Subject.of(path, judge.linear)):
                print(each.line(), flush=True)
                found.append(each)
    if options.json:
        data = {
            "machine": describe(),
            "references": {name: asdict(each) for name, each in references.items()},
            "judged": [asdict(each) for each in found],
        }
        options.json.write_text(json.dumps(data, indent=2))
    if options.markdown:
        options.markdown.write_text(markdown(found, references))


if __name__ == "__main__":
    main()
