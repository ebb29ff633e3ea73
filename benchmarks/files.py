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

OURS = [sys.executable, "-m", "pyarrowquant", "quantize"]
TO = ["--to", "compressed-tensors", "--zero-point", "integer"]
COMMANDS = {
    "pyarrowquant rtn": lambda source, target: [*OURS, source, target, *TO, "--method", "rtn"],
    "pyarrowquant mse": lambda source, target: [*OURS, source, target, *TO, "--method", "mse"],
    "llm-compressor W4A16_ASYM": lambda source, target: [
        sys.executable,
        str(FOLDER / "model_free.py"),
        source,
        target,
    ],
}


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes
    ----------
    seconds : float
    memory : int
        Peak bytes that are not mapped from files.
    error : float
        Relative error of some layers.
    """

    seconds: float
    memory: int
    error: float


def run(name: str, source: Path, target: Path) -> Run:
    """Run a command, check what it has written, and remove that."""
    seconds, memory = watched(COMMANDS[name](str(source), str(target)))
    error = relative_error(source, target)
    assert 0.05 < error < 0.13, f"{name}: relative error {error}"
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


def markdown(sizes: dict[str, int], runs: dict[str, dict[str, list[Run]]]) -> str:
    """A table of medians."""
    lines = [
        "| model | command | seconds (median) | min .. max | MiB, not mapped | error |",
        "|---|---|---|---|---|---|",
    ]
    for model, commands in runs.items():
        for name, found in commands.items():
            seconds = sorted(each.seconds for each in found)
            lines.append(
                f"| {sizes[model] / 1e9:.1f} GB | {name} | {statistics.median(seconds):.1f} | "
                f"{seconds[0]:.1f} .. {seconds[-1]:.1f} | "
                f"{max(each.memory for each in found) >> 20} | {found[0].error:.4f} |"
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
        for model, blocks, repetitions in (
            ("small", SMALL, arguments.repetitions),
            ("large", LARGE, 1),
        ):
            source = Path(folder) / model
            sizes[model] = make_checkpoint(source, blocks)
            names = [name for name in COMMANDS if model == "small" or name.startswith("pyarrow")]
            runs[model] = {name: [] for name in names}
            for _ in range(repetitions):
                for name in names:
                    found = run(name, source, Path(folder) / "target")
                    runs[model][name].append(found)
                    print(model, name, found, flush=True)
            shutil.rmtree(source)
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
