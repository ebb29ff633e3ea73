"""Results of a run of quality.py, as lines, JSON and Markdown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from timing import Times

GAUSSIAN = "Gaussian"
MODEL = "MiniLM"


@dataclass(frozen=True)
class Quality:
    """One quantizer on one data set.

    Attributes
    ----------
    bits : float
        Stored bits a weight, metadata included.
    error : float
        ||w - w'|| / ||w|| over all weights.
    nbytes : int
        Bytes of float32 that each of the `times` is for.
    """

    data: str
    family: str
    name: str
    bits: float
    error: float
    nbytes: int
    times: Times

    def cells(self) -> list[str]:
        low, middle, high = (significant(rate) for rate in self.times.rates(self.nbytes))
        return [self.name, f"{self.bits:.3f}", f"{self.error:.5f}", middle, f"{low} .. {high}"]

    def line(self) -> str:
        name, bits, error, rate, spread = self.cells()
        return f"{self.data:9} {name:45} {bits:>7} bits  error {error}  {rate:>7} GB/s ({spread})"

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "times": self.times.seconds}


@dataclass(frozen=True)
class Output:
    """What the model's embeddings are with the weights of one quantizer.

    Attributes
    ----------
    bits : float
        Stored bits a weight of the quantized layers.
    mean, least : float
        Cosine of the embedding of a sentence with float weights and the one with decoded
        weights: the mean over all sentences, and the worst sentence.
    """

    family: str
    name: str
    bits: float
    mean: float
    least: float

    def cells(self) -> list[str]:
        return [self.name, f"{self.bits:.3f}", f"{self.mean:.5f}", f"{self.least:.5f}"]

    def line(self) -> str:
        name, bits, mean, least = self.cells()
        return f"{'output':9} {name:45} {bits:>7} bits  cosine {mean}, least {least}"

    def record(self) -> dict[str, Any]:
        return asdict(self)


def significant(rate: float) -> str:
    """Three digits or so, however small the rate."""
    return f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}" if rate >= 0.1 else f"{rate:.4f}"


def markdown(machine: dict[str, str], qualities: list[Quality], outputs: list[Output]) -> str:
    """The page of a run."""
    versions = ", ".join(
        f"{name} {version}"
        for name, version in machine.items()
        if name not in ("date", "cpu", "cores", "system")
    )
    parts = [
        HEAD,
        f"Measured on {machine['date']}, {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}; {versions}.",
    ]
    for data, members in groupby(qualities, key=lambda quality: quality.data):
        parts.append(f"## {data}\n\n{DATA[data]}")
        parts.append(
            table(
                ("", "bits a weight", "relative error", "GB/s (median)", "min .. max"),
                [quality.cells() for quality in members],
            )
        )
    if outputs:
        parts.append(OUTPUT)
        parts.append(
            table(
                ("", "bits a weight", "mean cosine", "least cosine"),
                [output.cells() for output in outputs],
            )
        )
    return "\n\n".join(parts) + "\n"


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


HEAD = """# Error per bit

What `make bench` wrote. For each quantizer, and on two sets of weights:

- Bits a weight: everything that is stored, divided by the number of weights, in the types in \
which the format keeps it. For this package that is what an export stores: packed codes, and a \
group a float16 scale (chosen by `scale_dtype="float16"`) and a zero-point: as many bits as a \
code if "integer", float16 if "float", none if "symmetric". Rows that say float32 have float32 \
scales and zero-points. For others it is the size of the arrays that they return; scales and \
biases of MLX, scales and zero-points of HQQ and scales of llm-compressor as float16, which is \
what their models on disk have. HQQ packs ten codes of 3 bits into 32, so they are \
3.2; its groups lie along rows (axis 1), which leaves less error here than its default.
- Relative error: ||w - w'|| / ||w|| over all weights, w' being decoded from what was counted. \
The limit of all codes, for Gaussian weights, is 2^-bits.
- GB/s: 10^9 bytes of float32 input a second, with two threads at most; the median of at least \
5 calls, the slowest and the fastest. Every result is checked before it is timed. What takes \
long (HQQ, llm-compressor's mse) is timed with a part of the weights. The machine is shared, so \
compare within the run.

K-quants of ggml need rows of a multiple of 256 weights; matrices of 384 columns are read for \
them as matrices of 256 columns, so that all have the same weights. llama.cpp would store such \
tensors in other types. No quantizer is given an importance of weights.

In the pictures, a mark without a name has groups of 128 (NF4: of 64), and ours a float \
zero-point; "int" and "sym" are other zero-points, "double" are scales that are quantized too.

![Error against bits](error-per-bit.png)

![Error against speed](error-speed.png)"""

DATA = {
    GAUSSIAN: "Random weights of a normal distribution, 4096 x 4096.",
    MODEL: "All 40 matrices of all-MiniLM-L6-v2, embeddings included: 22.7 million weights.",
}

OUTPUT = """## Output of the model

Sentence embeddings of all-MiniLM-L6-v2 (mean of the tokens, normalized; float32 on the CPU) for \
216 different English sentences: the cosine of the embedding with float weights and the one with \
decoded weights, in the mean and for the worst sentence. The weights of the encoder's 36 linear \
layers are quantized, embeddings are not."""
