"""How time and memory grow: with threads, with layers, and with the size of a model.

    python benchmarks/growth.py [--folder FOLDER] [--markdown FILE]

Threads that this machine lacks are simulated: tasks are handed out as quant/pool.go does it, each
takes what one thread measures here, and all together read no faster than this machine's memory.
Models are sparse files, whose weights are all 0. The memory is the peak of what is not mapped from
files.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from checkpoint import sparse_checkpoint
from files import OURS, Command
from limits import Limits
from machine import cpu_model
from timing import measure
from workloads import MIB, large_layers, small_layers

import pyarrowquant

UNIT = 64 << 10  # weights, as unitElements of quant/plan.go
MOST_TOGETHER = 16  # as of quant/pool.go
SIMULATED = (4, 8, 16, 32, 64, 128)
LAYERS = (1, 10, 100, 1_000, 10_000, 100_000)
REPETITIONS = 30
BLOCKS = (1, 10, 34, 110)  # of a model: 0.35 to 10 GB


@dataclass(frozen=True)
class Growth:
    """Seconds at each number of threads, measured or simulated."""

    threads: int
    seconds: float
    is_simulated: bool


def of_threads(method: str, size: int) -> Iterator[Growth]:
    """Time a table of large layers."""
    table = large_layers(size, 4)
    measured = {}
    for threads in range(1, len(os.sched_getaffinity(0)) + 1):
        call = partial(
            pyarrowquant.quantize_batch_arrow, table, method=method, threads=threads, metrics=False
        )
        measured[threads] = least(call, REPETITIONS)
        yield Growth(threads, measured[threads], False)
    limits = Limits(size)  # whose memory the loop reads
    reading = least(limits.loop("read", max(measured)), REPETITIONS)
    for threads in SIMULATED:
        if threads not in measured:
            yield Growth(threads, max(simulated(size // 4, threads, measured[1]), reading), True)


def least(call: Callable[[], object], repetitions: int) -> float:
    return min(measure(call, repetitions).seconds)


def processor_time(call: Callable[[], object]) -> float:
    call()
    begin = time.process_time()
    call()
    return time.process_time() - begin


def simulated(weights: int, threads: int, alone: float) -> float:
    """Return the seconds until the last of the threads has done its last tasks."""
    tasks = -(-weights // UNIT)
    together = max(1, min(MOST_TOGETHER, tasks // 16 // threads))
    each = alone / tasks
    free = [0.0] * threads  # when each thread takes the next tasks
    for first in range(0, tasks, together):
        count = min(together, tasks - first)
        heapq.heapreplace(free, free[0] + count * each)
    return max(free)


def thread_table(size: int) -> Iterator[str]:
    yield "| threads | rtn, ms | of 1 thread | mse, ms | of 1 thread |"
    yield "|---|---|---|---|---|"
    for rtn, mse in zip(of_threads("rtn", size), of_threads("mse", size), strict=True):
        if rtn.threads == 1:
            alone = rtn.seconds, mse.seconds
        cells = [str(rtn.threads) + (" (simulated)" if rtn.is_simulated else "")]
        for one, first in zip((rtn, mse), alone, strict=True):
            cells += [f"{1e3 * one.seconds:.1f}", f"{first / one.seconds:.1f} times as fast"]
        yield f"| {' | '.join(cells)} |"


def layer_table(folder: Path) -> Iterator[str]:
    yield "| layers of 4 KiB | call, ms | microseconds a layer | plan, CPU ms | convert, CPU ms |"
    yield "|---|---|---|---|---|"
    for count in LAYERS:
        table = small_layers(count, 4096)
        call = least(partial(pyarrowquant.quantize_batch_arrow, table), REPETITIONS)
        source, target = folder / "layers.safetensors", folder / "layers.parquet"
        write_layers(source, table)
        plan = processor_time(partial(pyarrowquant.plan, source, target, overwrite=True))
        convert = processor_time(partial(pyarrowquant.convert, source, target, overwrite=True))
        milliseconds = [f"{1e3 * seconds:.1f}" for seconds in (call, plan, convert)]
        each = f"{1e6 * call / count:.1f}"
        yield f"| {count:,} | {milliseconds[0]} | {each} | {milliseconds[1]} | {milliseconds[2]} |"


def write_layers(path: Path, table: pa.Table) -> None:
    """Write layers as matrices of a safetensors file."""
    header, end = {}, 0
    column = table["weights"].combine_chunks()
    for name, size in zip(
        table["layer_name"].to_pylist(), column.value_lengths().to_pylist(), strict=True
    ):
        begin, end = end, end + 4 * size
        header[name] = {"dtype": "F32", "shape": [8, size // 8], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(np.asarray(column.flatten()).astype("<f4").data)


def size_table(folder: Path) -> Iterator[str]:
    yield "| model | compressed-tensors, rtn, s | CPU s | MiB, not mapped |"
    yield "|---|---|---|---|"
    for blocks in BLOCKS:
        source, target = folder / "model", folder / "target"
        size = sparse_checkpoint(source, blocks)
        before = children_time()
        seconds, memory = command(source, target)
        used = children_time() - before
        for each in (source, target):
            shutil.rmtree(each)
        row = f"{size / 1e9:.2f} GB", f"{seconds:.2f}", f"{used:.2f}"
        yield f"| {' | '.join(row)} | {memory >> 20} |"


def children_time() -> float:
    """Return the processor time of all processes that have ended, in seconds."""
    used = os.times()
    return used.children_user + used.children_system


def command(source: Path, target: Path) -> tuple[float, int]:
    """Run a conversion as a process; return its seconds and its peak of memory."""
    said = ["--to", "compressed-tensors", "--method", "rtn"]
    return Command((*OURS, *said), None).run(source, target)


def printed(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        print(line, flush=True)
        yield line
    print(flush=True)
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="for the models; default a temporary one")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    lines = [f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores", ""]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for table in (
            thread_table(512 * MIB),
            layer_table(Path(folder)),
            size_table(Path(folder)),
        ):
            lines += printed(table)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
