"""Measure how much two threads gain over one: on one large layer, and on many small ones.

    python tests/bench/bench_scaling.py [--json FILE] [--repetitions 5]

Each result is checked before it is timed. GB/s are 10^9 bytes of float32 input a second.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from bench import empty_call
from machine import describe
from timing import Times, measure
from workloads import MIB, input_bytes, large_layers, small_layers

import pyarrowquant

GROUP_SIZE = 128
LEAST_REPETITIONS = 5


def values(column: pa.ChunkedArray) -> np.ndarray:
    """All floats of a column of lists, as groups."""
    chunks = [chunk.flatten().to_numpy() for chunk in column.chunks]
    return np.concatenate(chunks)


def check(table: pa.Table) -> None:
    """No weight may be further than half a step from what its code decodes to."""
    result = pyarrowquant.quantize_batch_arrow(table)
    decoded = values(pyarrowquant.dequantize_batch_arrow(result)["weights"])
    error = np.abs(decoded - values(table["weights"])).reshape(-1, GROUP_SIZE).max(axis=1)
    bound = 0.5001 * values(result["scales"])  # of rounding in float32, a little
    if not (error <= bound).all():
        raise SystemExit(f"wrong result: an error of {(error / bound).max() / 2:.3f} steps")


def scaling(name: str, table: pa.Table, repetitions: int) -> dict[str, Any]:
    """Time one and two threads, and print what they took."""
    check(table)
    nbytes = input_bytes(table)
    medians, seconds = {}, {}
    print(f"\n{name}: {nbytes / MIB:,.1f} MiB")
    for threads in (1, 2):
        times = measure(
            lambda t=threads: pyarrowquant.quantize_batch_arrow(table, threads=t), repetitions
        )
        medians[threads], seconds[threads] = times.median, times.seconds
        print(
            f"  {threads} thread{'s'[: threads - 1]:1}  "
            f"min {min(times.seconds):.4f} s, median {times.median:.4f} s, "
            f"max {max(times.seconds):.4f} s, {nbytes / times.median / 1e9:.2f} GB/s (median)"
        )
    ratio = medians[1] / medians[2]
    print(f"  2 threads are {ratio:.2f} times as fast as 1 (ratio of medians)")
    return {"workload": name, "bytes": nbytes, "seconds": seconds, "speed_up": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=LEAST_REPETITIONS)
    parser.add_argument("--mebibytes", type=int, default=256, help="size of the large layer")
    parser.add_argument("--layers", type=int, default=20_000, help="number of small layers")
    parser.add_argument("--json", type=Path, help="write all repetitions to this file")
    arguments = parser.parse_args()
    if arguments.repetitions < LEAST_REPETITIONS:
        parser.error(f"--repetitions must be at least {LEAST_REPETITIONS}")

    machine = describe()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    print(f"workload: float32 normal weights, 4 bits, groups of {GROUP_SIZE}, rtn; results of")
    print(f"earlier calls are dropped; {arguments.repetitions} repetitions after a warm-up")
    rows = [
        scaling(
            f"one layer of {arguments.mebibytes} MiB",
            large_layers(arguments.mebibytes * MIB, 1),
            arguments.repetitions,
        ),
        scaling(
            f"{arguments.layers:,} layers of 4 KiB in one chunk",
            small_layers(arguments.layers, 4096),
            arguments.repetitions,
        ),
    ]
    empty: Times = empty_call(arguments.repetitions)
    print(f"\na call on a typed empty table: {empty.median * 1e6:.1f} us (median)")
    if arguments.json:
        record = {"machine": machine, "rows": rows, "empty_call_seconds": empty.seconds}
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
