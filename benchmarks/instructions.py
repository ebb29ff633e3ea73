"""Instructions that the NEON kernel takes for a weight, beside the AVX2 kernel, and an estimate.

    python benchmarks/instructions.py [--benchmarks PATTERN] [--markdown FILE]

qemu runs the benchmarks of quant/internal/kernel for both processors, and counts. A benchmark runs
once and then more often, and the difference is divided by the weights, so that what a process does
besides does not count. Go marks inlined calls with instructions that do nothing, which processors
drop before they execute any: they are counted apart. Needs Go, a C compiler, qemu-user 7 or 8, and
a processor with AVX2, whose instructions a cycle are measured: the estimate has other processors
execute as many.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from growth import printed
from machine import cpu_model

HERE = Path(__file__).parent
KERNEL = HERE.parent / "quant" / "internal" / "kernel"
WEIGHTS = 16 * 4096  # as in benchmark_test.go

# Their names in tables, and how often they run more: a start varies by some 100,000 instructions.
BENCHMARKS = {
    "RoundToNearest": ("rtn", 200),
    "Metrics": ("rtn with metrics", 100),
    "Dequantize": ("dequantize", 200),
    "MeanSquares": ("mse", 8),
    "Importance": ("mse with importance", 8),
    "HalfQuadratic": ("hqq", 8),
}

GIGAHERTZ = {"Neoverse V2": 2.8, "M1": 3.2}  # of Graviton4, and of the slowest of the M series
MOST_TOGETHER = 4.0  # instructions a cycle: both have as many units for vectors


@dataclass(frozen=True)
class Processor:
    """A kernel, the variables of Go that it is built with, and what runs it."""

    kernel: str
    variables: dict[str, str]
    emulator: tuple[str, ...]


NEON = Processor("neon", {"GOARCH": "arm64", "GOEXPERIMENT": "simd"}, ("qemu-aarch64",))
AVX2 = Processor("avx2", {"GOARCH": "amd64"}, ("qemu-x86_64", "-cpu", "max"))


@dataclass(frozen=True)
class Counted:
    """The instructions of a process; empty ones do nothing."""

    all: int
    empty: int


@dataclass(frozen=True)
class Instructions:
    """Those that one weight takes, and the empty ones besides."""

    full: float
    empty: float


class Program:
    """The benchmarks for one processor.

    Parameters
    ----------
    processor : Processor
        What it has.
    folder : Path
        Where the program is built.
    """

    def __init__(self, processor: Processor, folder: Path) -> None:
        self.processor = processor
        self._path = folder / f"{processor.kernel}.test"
        self._plugin = folder / "instructions.so"
        variables = {"GOOS": "linux", "CGO_ENABLED": "0", **processor.variables}
        build = ["go", "test", "-c", "-o", str(self._path), "."]
        subprocess.run(build, cwd=KERNEL, env={**os.environ, **variables}, check=True)
        compiled("instructions.c", self._plugin, "-shared", "-fPIC")

    def names(self, benchmark: str) -> list[str]:
        """Return what a benchmark does its work with."""
        output = self._run([], f"^Benchmark{benchmark}$/^{self.processor.kernel}$", "1x")
        return [name for name, _ in found(output, self.processor.kernel)]

    def instructions(self, benchmark: str, name: str, times: int) -> Instructions:
        """Count what one weight takes."""
        first = self._counted(benchmark, name, 1)
        more = self._counted(benchmark, name, 1 + times)
        weights = times * WEIGHTS
        empty = more.empty - first.empty
        return Instructions((more.all - first.all - empty) / weights, empty / weights)

    def _counted(self, benchmark: str, name: str, times: int) -> Counted:
        emulator = [*self.processor.emulator, "-plugin", str(self._plugin)]
        output = self._run(emulator, self._pattern(benchmark, name), f"{times}x")
        pattern = r"^instructions: (\d+), empty: (\d+)$"
        ((every, empty),) = re.findall(pattern, output, re.MULTILINE)
        return Counted(int(every), int(empty))

    def nanoseconds(self, benchmark: str, name: str) -> float:
        """Return the least that one weight takes on this machine's processor."""
        output = self._run([], self._pattern(benchmark, name), "500us", "-test.count=200")
        return min(each for _, each in found(output, self.processor.kernel)) / WEIGHTS

    def _pattern(self, benchmark: str, name: str) -> str:
        return f"^Benchmark{benchmark}$/^{self.processor.kernel}$/^{name}$"

    def _run(self, emulator: list[str], pattern: str, duration: str, *more: str) -> str:
        flags = ["-test.run=^$", f"-test.bench={pattern}", f"-test.benchtime={duration}", *more]
        # Nothing runs beside, and collects or interrupts.
        variables = {"GOMAXPROCS": "1", "GOGC": "off", "GODEBUG": "asyncpreemptoff=1"}
        done = subprocess.run(
            [*emulator, str(self._path), *flags],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
            text=True,
        )
        return done.stdout


def found(output: str, kernel: str) -> list[tuple[str, float]]:
    """Find the names and the nanoseconds of benchmarks in what Go prints."""
    pattern = rf"^Benchmark\w+/{kernel}/(\S+)\s+\d+\s+([\d.]+) ns/op"
    return [(name, float(each)) for name, each in re.findall(pattern, output, re.MULTILINE)]


def compiled(source: str, target: Path, *options: str) -> Path:
    command = ["cc", "-O1", *options, "-o", str(target), str(HERE / source)]
    subprocess.run(command, check=True)
    return target


def cycles_a_nanosecond(folder: Path) -> float:
    clock = compiled("clock.c", folder / "clock")
    return float(subprocess.run([clock], capture_output=True, check=True, text=True).stdout) / 1e9


def table(wanted: str, folder: Path) -> Iterator[str]:
    neon, avx2 = Program(NEON, folder), Program(AVX2, folder)
    clock = cycles_a_nanosecond(folder)
    estimated = " | ".join(f"{name}, {each} GHz" for name, each in GIGAHERTZ.items())
    yield f"{cpu_model()}, {clock:.2f} GHz; estimates in 10^9 weights a second"
    yield ""
    yield f"| | | NEON | empty | AVX2 | NEON / AVX2 | AVX2 a cycle | AVX2 here | {estimated} |"
    yield f"|---|---|---|---|---|---|---|---|{'---|' * len(GIGAHERTZ)}"
    for benchmark, (title, times) in BENCHMARKS.items():
        if not re.search(wanted, benchmark):
            continue
        for name in avx2.names(benchmark):
            ours = neon.instructions(benchmark, name, times)
            theirs = avx2.instructions(benchmark, name, times)
            seconds = avx2.nanoseconds(benchmark, name)
            together = theirs.full / seconds / clock
            cells = [title, name.replace("_", " ") if name.startswith("int_") else name]
            counts = ours.full, ours.empty, theirs.full, ours.full / theirs.full, together
            cells += [f"{each:.1f}" for each in counts]
            cells.append(f"{1 / seconds:.3g}")
            for gigahertz in GIGAHERTZ.values():
                estimate = gigahertz * min(together, MOST_TOGETHER) / ours.full
                cells.append(f"{estimate:.2g}")
            yield f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmarks", default="", help="pattern of their names in Go")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines: Iterable[str] = list(printed(table(arguments.benchmarks, Path(folder))))
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
