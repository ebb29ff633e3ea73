"""Measure the error that quantizers leave, for the bits and for the time that they take.

    python benchmarks/quality.py [--quick] [--json FILE] [--markdown FILE] [--plots FOLDER]

Every quantizer of own.py and peers.py, on Gaussian weights and on those of a real model; then
the output of that model with decoded weights. A quantizer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from machine import describe
from own import own_quantizers
from peers import quality_peers
from quality_report import GAUSSIAN, MODEL, Output, Quality, markdown
from quantizer import Quantizer, UnavailableError, Weights, check, count, one_part_in
from timing import measure
from workloads import MIB, gaussian, model_weights

REPETITIONS = 5


class Run:
    """Results of one run, and what it left out."""

    def __init__(self) -> None:
        self.qualities: list[Quality] = []
        self.outputs: list[Output] = []
        self.left_out: set[tuple[str, str]] = set()

    def leave_out(self, quantizer: Quantizer, reason: Exception) -> None:
        """Say it once a family, not for each of its widths."""
        if (quantizer.family, str(reason)) not in self.left_out:
            self.left_out.add((quantizer.family, str(reason)))
            print(f"{quantizer.family}: left out, {reason}", flush=True)

    def measure_errors(self, data: str, weights: Weights, quantizers: list[Quantizer]) -> None:
        """Bits, errors and times of all quantizers on one set of weights."""
        for quantizer in quantizers:
            try:
                prepared = quantizer.prepare(weights)
                checked = check(prepared, weights)
            except (ImportError, UnavailableError) as reason:
                self.leave_out(quantizer, reason)
                continue
            part = one_part_in(quantizer.fraction, weights)
            timed = quantizer.prepare(part) if quantizer.fraction > 1 else prepared
            times = measure(timed.call, REPETITIONS)
            quality = Quality(
                data,
                quantizer.family,
                quantizer.name,
                checked.bits,
                checked.error,
                4 * count(part),
                times,
            )
            self.qualities.append(quality)
            print(quality.line(), flush=True)

    def measure_outputs(self, quantizers: list[Quantizer], sentences: int | None) -> None:
        """What the real model makes of the weights of all quantizers."""
        try:
            from model_output import SentenceModel

            model = SentenceModel(sentences)
        except (ImportError, UnavailableError) as reason:
            print(f"output of the model: left out, {reason}")
            return
        for quantizer in quantizers:
            try:
                output = model.output_of(quantizer)
            except (ImportError, UnavailableError) as reason:
                self.leave_out(quantizer, reason)
                continue
            self.outputs.append(output)
            print(output.line(), flush=True)

    def record(self, machine: dict[str, str]) -> dict[str, object]:
        return {
            "machine": machine,
            "qualities": [quality.record() for quality in self.qualities],
            "outputs": [output.record() for output in self.outputs],
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="an eighth of the weights")
    parser.add_argument("--only", default="", help="quantizers whose names contain this text")
    parser.add_argument("--json", type=Path, help="write all results to this file")
    parser.add_argument("--markdown", type=Path, help="write tables to this file")
    parser.add_argument("--plots", type=Path, help="write two pictures to this folder")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"

    machine = describe()
    quantizers = [q for q in (*own_quantizers(), *quality_peers()) if arguments.only in q.name]
    fraction, sentences = (8, 72) if arguments.quick else (1, None)
    run = Run()
    random = {"w": gaussian(64 * MIB).reshape(4096, 4096)}
    run.measure_errors(GAUSSIAN, one_part_in(fraction, random), quantizers)
    try:
        run.measure_errors(MODEL, one_part_in(fraction, model_weights()), quantizers)
    except UnavailableError as reason:
        print(f"{MODEL}: left out, {reason}")
    run.measure_outputs(quantizers, sentences)

    record = run.record(machine)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(machine, run.qualities, run.outputs))
    if arguments.plots:
        from plots import write_plots

        write_plots(record, arguments.plots)


if __name__ == "__main__":
    main()
