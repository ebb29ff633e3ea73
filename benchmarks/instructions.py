"""Instructions that the NEON kernel takes for a weight, beside the AVX2 kernel, and an estimate.

    python benchmarks/instructions.py [--benchmarks PATTERN] [--markdown FILE] [--page FILE]

qemu runs the benchmarks of quant/internal/kernel for both processors, and counts. A benchmark runs
once and then more often, and the difference is divided by the weights, so that what a process does
besides does not count. Go marks inlined calls with instructions that do nothing, which processors
drop before they execute any: they are counted apart. Needs Go, a C compiler, qemu-user 7 or 8, and
a processor with AVX2, whose instructions a cycle are measured: the estimate has other processors
execute as many. The page gets the rows of docs/performance.md.
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

# What docs/performance.md has of each, by the names of benchmarks.
INTEGER = tuple(f"int_of_{bits}_bits" for bits in (2, 3, 4))
HALVES = tuple(f"int_of_4_bits,_{dtype}_weights" for dtype in ("float16", "bfloat16"))
ENCODED = ("q4_k", "q6_k", "iq4_nl", "nf4", "mxfp4", "mxfp8", "nvfp4", "fp8")
ON_PAGE = {
    "RoundToNearest": (*INTEGER, *HALVES, "int_of_8_bits", *ENCODED),
    "Metrics": (INTEGER[-1], "int_of_8_bits", HALVES[-1]),
    "Dequantize": (*INTEGER, "int_of_8_bits", *ENCODED),
    "MeanSquares": (*INTEGER, HALVES[0], *ENCODED),
    "Importance": ("q4_k",),
    "HalfQuadratic": (INTEGER[-1],),
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


@dataclass(frozen=True)
class Row:
    """What was counted and measured of a benchmark.

    Attributes
    ----------
    together : float
        Instructions of AVX2 that are executed in a cycle.
    billions : float
        Weights a second with AVX2, in 10^9.
    """

    benchmark: str
    name: str
    neon: Instructions
    avx2: Instructions
    together: float
    billions: float

    @property
    def title(self) -> str:
        return BENCHMARKS[self.benchmark][0]

    @property
    def work(self) -> str:
        return self.name.replace("_", " ") if self.name.startswith("int_") else self.name

    @property
    def ratio(self) -> str:
        return f"{self.neon.full / self.avx2.full:.1f}"

    def estimates(self) -> list[str]:
        each = min(self.together, MOST_TOGETHER) / self.neon.full
        return [f"{gigahertz * each:.2g}" for gigahertz in GIGAHERTZ.values()]

    def in_full(self) -> str:
        counts = [f"{each:.1f}" for each in (self.neon.full, self.neon.empty, self.avx2.full)]
        measured = [f"{self.together:.1f}", f"{self.billions:.3g}"]
        return _row([self.title, self.work, *counts, self.ratio, *measured, *self.estimates()])

    def on_page(self) -> str:
        method, *more = self.title.split(" ", 1)
        work = f"`{self.work}`" if self.work == self.name else self.work.removeprefix("int of ")
        counts = [f"{each:.1f}" for each in (self.neon.full, self.avx2.full)]
        cells = [" ".join([f"`{method}`", *more]) + f", {work}", *counts, self.ratio]
        return _row([*cells, f"{self.billions:.2g}", *self.estimates()])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def measured_rows(wanted: str, folder: Path, clock: float) -> Iterator[Row]:
    neon, avx2 = Program(NEON, folder), Program(AVX2, folder)
    for benchmark, (_, times) in BENCHMARKS.items():
        if not re.search(wanted, benchmark):
            continue
        for name in avx2.names(benchmark):
            ours = neon.instructions(benchmark, name, times)
            theirs = avx2.instructions(benchmark, name, times)
            seconds = avx2.nanoseconds(benchmark, name)
            together = theirs.full / seconds / clock
            yield Row(benchmark, name, ours, theirs, together, 1 / seconds)


def table(rows: Iterable[Row], clock: float) -> Iterator[str]:
    estimated = [f"{name}, {each} GHz" for name, each in GIGAHERTZ.items()]
    head = ["", "", "NEON", "empty", "AVX2", "NEON / AVX2", "AVX2 a cycle", "AVX2 here", *estimated]
    yield f"{cpu_model()}, {clock:.2f} GHz; estimates in 10^9 weights a second"
    yield ""
    yield _row(head)
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield row.in_full()


def kept(measured: Iterable[Row], rows: list[Row]) -> Iterator[Row]:
    """Pass rows on as they are measured."""
    for row in measured:
        rows.append(row)
        yield row


def page_table(rows: Iterable[Row]) -> Iterator[str]:
    found = {(row.benchmark, row.name): row for row in rows}
    head = ["", "NEON", "AVX2", "NEON / AVX2", "AVX2 measured", *GIGAHERTZ]
    yield _row(head)
    yield f"|{'---|' * len(head)}"
    for benchmark, names in ON_PAGE.items():
        for name in names:
            if row := found.get((benchmark, name)):
                yield row.on_page()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmarks", default="", help="pattern of their names in Go")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        clock = cycles_a_nanosecond(Path(folder))
        measured = measured_rows(arguments.benchmarks, Path(folder), clock)
        lines = list(printed(table(kept(measured, rows), clock)))
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines))
    if arguments.page:
        arguments.page.write_text("\n".join(page_table(rows)) + "\n")


if __name__ == "__main__":
    main()
