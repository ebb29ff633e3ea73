"""Results of judged.py, as lines and Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from judged_own import MAKER

# Sizes at which makers are compared: four bits with a scale for 64 weights, or with two numbers.
BOUNDS = (4.25, 4.5)
ROOM = 0.01  # what a method may store once a row or a column


@dataclass(frozen=True)
class Judged:
    """What a model predicts after a candidate quantized it."""

    model: str
    maker: str
    settings: str
    calibrated: bool
    bits: float
    divergence: float
    top_agreement: float
    perplexity: float
    seconds: float

    def line(self) -> str:
        return (
            f"{self.model}, {self.maker} {self.settings}: {self.bits:.3f} bits, KL divergence "
            f"{self.divergence:.4f}, perplexity {self.perplexity:.3f}, {self.seconds:.1f} s"
        )


@dataclass(frozen=True)
class Reference:
    """The float model."""

    perplexity: float
    tokens: int


def markdown(found: list[Judged], references: dict[str, Reference]) -> str:
    lines = []
    for model, reference in references.items():
        rows = [each for each in found if each.model == model]
        lines += [
            f"### {model}",
            "",
            f"{reference.tokens:,} predictions; perplexity of the float model "
            f"{reference.perplexity:.3f}.",
            "",
        ]
        for calibrated in (False, True):
            lines += table([each for each in rows if each.calibrated == calibrated], calibrated)
        lines += ["| best of at most | | pyarrowquant | others | ratio |", "|---|---|---|---|---|"]
        lines += [*comparisons(rows), ""]
    return "\n".join(lines)


def table(rows: list[Judged], calibrated: bool) -> list[str]:
    head = "with a text" if calibrated else "without a text"
    return [
        f"| {head} | | bits a weight | KL divergence | same top token | perplexity | seconds |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {each.maker} | {each.settings} | {each.bits:.3f} | {each.divergence:.4f} | "
            f"{100 * each.top_agreement:.1f} % | {each.perplexity:.3f} | {each.seconds:.1f} |"
            for each in sorted(rows, key=lambda each: each.divergence)
        ),
        "",
    ]


def comparisons(rows: list[Judged]) -> list[str]:
    lines = []
    for calibrated in (False, True):
        for bound in BOUNDS:
            able = [
                each for each in rows if each.calibrated == calibrated and each.bits <= bound + ROOM
            ]
            ours = [each for each in able if each.maker == MAKER]
            others = [each for each in able if each.maker != MAKER]
            if not ours or not others:
                continue
            one, other = (min(each, key=lambda row: row.divergence) for each in (ours, others))
            lines.append(
                f"| {bound} bits | {'with' if calibrated else 'without'} a text | "
                f"{one.settings}: {one.divergence:.4f} | {other.maker} {other.settings}: "
                f"{other.divergence:.4f} | {one.divergence / other.divergence:.2f} |"
            )
    return lines
