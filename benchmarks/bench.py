"""Measure this package, the machine's memory, and other quantizers, in one run.

    python benchmarks/bench.py [--quick] [--json FILE] [--markdown FILE]

Every result is checked before it is timed. Calls are timed in turn with a loop that reads (or
writes) 1 GiB, those of 4 bits with one that writes as much as they do, too, and other quantizers
in turn with this package, since what a shared machine can do changes within seconds; ratios are
medians of turns. Results are dropped between calls, outside of the timed part;
before the row named "cold" kept memory is given back to the system.
GB/s are 10^9 bytes of input (of float32 output for dequantize) a second.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from limits import Limits
from machine import describe, empty_call, peak_memory
from peers import SPEED_PEERS
from quantizer import Quantizer, one_part_in, relative_error
from report import Row, markdown
from timing import measure_in_turn
from workloads import MIB, bfloat16_layers, gaussian, input_bytes, large_layers, small_layers

import pyarrowquant


@contextmanager
def forced_kernel(name: str) -> Iterator[None]:
    os.environ["PYARROWQUANT_KERNEL"] = name
    try:
        yield
    finally:
        del os.environ["PYARROWQUANT_KERNEL"]


def available_kernels() -> list[str]:
    """Kernels that this CPU can run, the slowest first."""
    names = []
    for name in ("scalar", "avx2", "avx512"):
        with forced_kernel(name):
            try:
                pyarrowquant.validate_arrow_input(
                    pa.table({"layer_name": ["a"], "weights": [[1.0]]})
                )
            except ValueError:
                continue
            names.append(name)
    return names


PEERS = "peers, 4 bits"
WRITING: dict[str, Any] = {"limit": "read_write"}  # as much as 4 bits in groups of 128 do
ENCODINGS = {  # and about what errors `rtn` leaves, of normal weights
    "q2_k": 0.33,
    "q3_k": 0.155,
    "q4_k": 0.078,
    "q5_k": 0.038,
    "q6_k": 0.019,
    "iq4_nl": 0.080,
    "iq4_xs": 0.080,
    "nf4": 0.092,
    "mxfp4": 0.115,
    "nvfp4": 0.095,
    "mxfp8": 0.029,
    "fp8": 0.027,
}


class Bench:
    """Rows of one run.

    Parameters
    ----------
    size : int
        Bytes of the main tables.
    repetitions : int
    """

    def __init__(self, size: int, repetitions: int) -> None:
        self.repetitions = repetitions
        self.rows: list[Row] = []
        self.limits = Limits(size)

    def measure(
        self,
        group: str,
        name: str,
        nbytes: int,
        call: Callable[[], object],
        threads: int,
        limit: str = "read",
        own: tuple[int, Callable[[], object]] | None = None,
        **how: Any,
    ) -> None:
        """Time a call in turn with a loop over memory, and with a call of this package.

        Parameters
        ----------
        limit : {"read", "read_write", "write"}
        own : tuple of int and callable, or None
            Bytes, and the call.
        how
            Arguments of `measure_in_turn`.
        """
        calls = {"limit": self.limits.loop(limit, threads), "call": call}
        if own is not None:
            own_bytes, calls["own"] = own
        times = measure_in_turn(calls, **{"repetitions": self.repetitions, **how})
        ratio = nbytes / self.limits.size / times["call"].over(times["limit"])
        slower = None
        if own is not None:
            slower = times["call"].over(times["own"]) / nbytes * own_bytes
        row = Row(group, name, threads, nbytes, times["call"], times["limit"], limit, ratio, slower)
        self.rows.append(row)
        print(row.line(), flush=True)

    def quantize(
        self,
        group: str,
        name: str,
        table: pa.Table,
        threads: int,
        how: dict[str, Any] | None = None,
        **options: object,
    ) -> None:
        """Check one result, then time the call."""
        check(table, options)
        call = quantizing(table, threads, **options)
        self.measure(group, name, input_bytes(table), call, threads, **(how or {}))

    def run_limits(self) -> None:
        for threads in (1, 2):
            for name in ("read", "read_write", "write"):
                loop = self.limits.loop(name, threads)
                self.measure("limits of memory", name, self.limits.size, loop, threads)

    def run_widths(self, table: pa.Table) -> None:
        for bits in (2, 3, 5, 6, 8):
            for threads in (1, 2):
                self.quantize("float32, widths", f"{bits} bits", table, threads, bit_width=bits)

    def run_four_bits(self, table: pa.Table) -> None:
        group = "float32, 4 bits"
        for threads in (1, 2):
            self.quantize(group, "4 bits", table, threads, WRITING)
        for zero_point in ("float", "symmetric"):
            self.quantize(group, zero_point, table, 2, WRITING, zero_point=zero_point)
        for group_size in (32, 64, -1):
            self.quantize(group, f"g {group_size}", table, 2, WRITING, group_size=group_size)
        for threads in (1, 2):
            self.quantize(group, "metrics", table, threads, WRITING, metrics=True)
        cold = {"before": pyarrowquant.release_memory, "warm_up": 0}
        self.quantize(group, "cold", table, 2, {**WRITING, **cold})

    def run_searches(self) -> None:
        table = large_layers(64 * MIB, 1)
        for group_size in (128, 32):
            name = f"mse, 4 bits, g {group_size}"
            self.quantize("searches", name, table, 2, group_size=group_size, method="mse")
        for encoding in ENCODINGS:
            self.quantize("searches", f"mse, {encoding}", table, 2, encoding=encoding, method="mse")

    def run_encodings(self, table: pa.Table) -> None:
        for encoding in ENCODINGS:
            self.quantize("encodings", encoding, table, 2, encoding=encoding)
        for encoding in ENCODINGS:
            result = pyarrowquant.quantize_batch_arrow(table, encoding=encoding)
            call = partial(pyarrowquant.dequantize_batch_arrow, result, threads=2)
            name = f"dequantize {encoding}"
            self.measure("encodings", name, input_bytes(table), call, 2, "write")

    def run_kernels(self, table: pa.Table) -> None:
        for kernel in available_kernels():
            with forced_kernel(kernel):
                for threads in (1, 2):
                    self.quantize("float32, kernels", kernel, table, threads, WRITING)

    def run_shapes(self) -> None:
        for layers in (1, 64):
            table = large_layers(256 * MIB, layers)
            for threads in (1, 2):
                self.quantize("shapes", f"{layers} layers of {256 // layers} MiB", table, threads)
        table = small_layers(20_000, 4096)
        for threads in (1, 2):
            self.quantize("shapes", "20,000 layers of 4 KiB", table, threads)

    def run_bfloat16(self) -> None:
        table = bfloat16_layers(self.limits.size // 2, 16)
        for bits in (4, 8):
            for threads in (1, 2):
                self.quantize("bfloat16 bytes", f"{bits} bits", table, threads, bit_width=bits)

    def run_dequantize(self, table: pa.Table) -> None:
        nbytes = input_bytes(table)
        for bits in (4, 3, 8):
            result = pyarrowquant.quantize_batch_arrow(table, bits)
            for threads in (1, 2):
                call = partial(pyarrowquant.dequantize_batch_arrow, result, threads=threads)
                self.measure("dequantize", f"{bits} bits", nbytes, call, threads, "write")

    def run_peers(self, names: list[str]) -> None:
        weights = gaussian(256 * MIB).reshape(-1, 4096)
        table = pyarrowquant.numpy_to_arrow_table({"w": weights})
        self.quantize(PEERS, "pyarrowquant", table, 2)
        for method in ("mse", "hqq"):
            options = {"method": method, "zero_point": "float"}
            self.quantize(PEERS, f"pyarrowquant {method}", table, 2, **options)
        for name in names:
            self.run_peer(SPEED_PEERS[name], {"w": weights}, quantizing(table, 2))

    def run_peer(
        self, peer: Quantizer, weights: dict[str, np.ndarray], own: Callable[[], object]
    ) -> None:
        part = one_part_in(peer.fraction, weights)
        try:
            prepared = peer.prepare(part)
        except ImportError as missing:
            print(f"{peer.name}: left out, {missing}")
            return
        error = relative_error(prepared.decode(prepared.call()), part)
        assert 0.01 < error < 0.2, (peer.name, error)  # 4 bits leave about 0.1
        how = {} if peer.fraction == 1 else {"repetitions": 5}
        beside = weights["w"].nbytes, own
        self.measure(PEERS, peer.name, part["w"].nbytes, prepared.call, 2, own=beside, **how)


def quantizing(table: pa.Table, threads: int, **options: object) -> Callable[[], pa.Table]:
    return partial(pyarrowquant.quantize_batch_arrow, table, threads=threads, **options)


def check(table: pa.Table, options: dict[str, object]) -> None:
    """The errors of a result are those of its width, or it is not worth timing."""
    result = pyarrowquant.quantize_batch_arrow(table, **{**options, "metrics": True})
    bits, encoding = result["bit_width"][0].as_py(), options.get("encoding")
    expected = {2: 0.55, 3: 0.22, 4: 0.10, 5: 0.05, 6: 0.025, 8: 0.006}[bits]
    if isinstance(encoding, str):
        expected = ENCODINGS[encoding]
    worst = max(result["relative_error"].to_pylist())
    assert 0 < worst < 2 * expected, (bits, encoding, worst)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="256 MiB tables only, no peers")
    parser.add_argument("--peers", nargs="*", choices=list(SPEED_PEERS), default=list(SPEED_PEERS))
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write all repetitions to this file")
    parser.add_argument("--markdown", type=Path, help="write a table to this file")
    arguments = parser.parse_args()

    machine = describe()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    bench = Bench((256 if arguments.quick else 1024) * MIB, arguments.repetitions)
    bench.run_limits()
    table = large_layers(bench.limits.size, 16)
    bench.run_four_bits(table)
    bench.run_widths(table)
    bench.run_kernels(table)
    bench.run_dequantize(table)
    bench.run_encodings(table)
    del table
    bench.run_bfloat16()
    bench.run_searches()
    bench.run_shapes()
    if not arguments.quick:
        bench.run_peers(arguments.peers)
    empty = empty_call(arguments.repetitions)
    peak = peak_memory()
    print(f"call on an empty table: {empty.median * 1e6:.0f} us")
    print(
        f"memory above the input in one call on 1 GiB: {peak['above'] / MIB:.0f} MiB, "
        f"result {peak['result'] / MIB:.0f} MiB"
    )
    if arguments.json:
        record = {
            "machine": machine,
            "rows": [row.record() for row in bench.rows],
            "empty_call_seconds": empty.seconds,
            "peak": peak,
        }
        arguments.json.write_text(json.dumps(record, indent=1))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(machine, bench.rows, empty, peak))


if __name__ == "__main__":
    main()
