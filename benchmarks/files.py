"""Whole commands on whole models: time beside llm-compressor, and memory for any size.

    python benchmarks/files.py [--repetitions N] [--json FILE] [--markdown FILE]

A process is timed from its start to its end, imports included. The memory is the peak of what is
not mapped from files (RssAnon), read every 5 ms.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from checkpoint import make_checkpoint
from decode import relative_error
from machine import describe

FOLDER = Path(__file__).parent
SMALL, LARGE = 10, 55  # blocks: 1.1 and 5.1 GB

OURS = (sys.executable, "-m", "pyarrowquant", "quantize", "{source}", "{target}")
TO = ("--to", "compressed-tensors")
INTEGER = (*TO, "--zero-point", "integer")
PEER = (sys.executable, str(FOLDER / "model_free.py"), "{source}", "{target}")
COPY = ("sh", "-c", "cp -r {source} {target} && sync {target}/*")
FOUR_BITS, FP8, NVFP4 = (0.05, 0.13), (0.02, 0.03), (0.07, 0.11)  # bounds on relative errors


@dataclass(frozen=True)
class Command:
    """What is timed.

    Attributes
    ----------
    arguments : tuple of str
    errors : tuple of float or None
        Bounds on the relative error, unless nothing is quantized.
    sources : tuple of str
        Names of the models that it gets.
    """

    arguments: tuple[str, ...]
    errors: tuple[float, float] | None
    sources: tuple[str, ...] = ("small",)

    def run(self, source: Path, target: Path) -> tuple[float, int]:
        """Return its seconds, and the peak of its memory that is not mapped."""
        return watched([each.format(source=source, target=target) for each in self.arguments])


EVERY = ("small", "large")
COMMANDS = {
    "copy and sync": Command(COPY, None),
    "pyarrowquant rtn": Command((*OURS, *INTEGER, "--method", "rtn"), FOUR_BITS, EVERY),
    "pyarrowquant mse": Command((*OURS, *INTEGER, "--method", "mse"), FOUR_BITS, EVERY),
    "llm-compressor W4A16_ASYM": Command((*PEER, "W4A16_ASYM"), FOUR_BITS),
    "pyarrowquant FP8_BLOCK": Command((*OURS, *TO, "--recipe", "FP8_BLOCK"), FP8, EVERY),
    "llm-compressor FP8_BLOCK": Command((*PEER, "FP8_BLOCK"), FP8),
    "pyarrowquant NVFP4A16": Command((*OURS, *TO, "--recipe", "NVFP4A16"), NVFP4, EVERY),
    "llm-compressor NVFP4A16": Command((*PEER, "NVFP4A16"), NVFP4),
    "pyarrowquant W4A16": Command((*OURS, *TO, "--recipe", "W4A16"), FOUR_BITS, ("small", "fp8")),
}


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes
    ----------
    seconds : float
    memory : int
        Peak bytes that are not mapped from files.
    error : float or None
        Relative error of some layers.
    """

    seconds: float
    memory: int
    error: float | None


def run(name: str, source: Path, target: Path, original: Path) -> Run:
    """Run a command, check what it has written, and remove that."""
    command = COMMANDS[name]
    seconds, memory = command.run(source, target)
    error = None
    if command.errors:
        error = relative_error(original, target)
        least, most = command.errors
        assert least < error < most, f"{name}: relative error {error}"
    shutil.rmtree(target)
    return Run(seconds, memory, error)


def watched(command: list[str]) -> tuple[float, int]:
    """Run a command; return its seconds, and the peak of its memory that is not mapped."""
    started, memory = time.perf_counter(), 0
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            memory = max(memory, _anonymous_memory(process.pid))
            time.sleep(0.005)
        seconds = time.perf_counter() - started
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{command} failed:\n{output.read().decode()}")
    return seconds, memory


def _anonymous_memory(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def markdown(sizes: dict[str, int], runs: dict[str, dict[str, list[Run]]]) -> str:
    """A table of medians."""
    lines = [
        "| model | command | seconds (median) | min .. max | MiB, not mapped | error |",
        "|---|---|---|---|---|---|",
    ]
    for model, commands in runs.items():
        for name, found in commands.items():
            seconds = sorted(each.seconds for each in found)
            size = f"{sizes[model] / 1e9:.1f} GB" + (", FP8" if model == "fp8" else "")
            lines.append(
                f"| {size} | {name} | {statistics.median(seconds):.1f} | "
                f"{seconds[0]:.1f} .. {seconds[-1]:.1f} | "
                f"{max(each.memory for each in found) >> 20} | "
                f"{'' if found[0].error is None else f'{found[0].error:.4f}'} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the models; default a temporary one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sizes, runs = {}, {}
        for models, blocks, repetitions in (
            (("small", "fp8"), SMALL, arguments.repetitions),
            (("large",), LARGE, 1),
        ):
            original = Path(folder) / models[0]
            make_checkpoint(original, blocks)
            if "fp8" in models:
                COMMANDS["pyarrowquant FP8_BLOCK"].run(original, Path(folder) / "fp8")
            for model in models:
                sizes[model] = size_of(Path(folder) / model)
                runs[model] = {n: [] for n, command in COMMANDS.items() if model in command.sources}
            for _ in range(repetitions):
                for model, name in [(m, n) for m in models for n in runs[m]]:
                    found = run(name, Path(folder) / model, Path(folder) / "target", original)
                    runs[model][name].append(found)
                    print(model, name, found, flush=True)
            for model in models:
                shutil.rmtree(Path(folder) / model)
    text = markdown(sizes, runs)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text)
    if arguments.json:
        record = {
            "machine": describe(),
            "bytes": sizes,
            "runs": {
                model: {name: [asdict(each) for each in found] for name, found in commands.items()}
                for model, commands in runs.items()
            },
        }
        arguments.json.write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
