"""Many Python threads at once."""

from __future__ import annotations

import gc
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pyarrowquant import dequantize_batch_arrow, numpy_to_arrow_table, quantize_batch_arrow
from pyarrowquant._core import library


def layers(seed: int, count: int = 4) -> pa.Table:
    rng = np.random.default_rng(seed)
    return numpy_to_arrow_table(
        {f"{seed}.{i}": rng.standard_normal((300, 1000), dtype=np.float32) for i in range(count)}
    )


def test_eight_threads_give_equal_bytes() -> None:
    table = layers(0)
    want = quantize_batch_arrow(table, threads=1)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(quantize_batch_arrow, [table] * 32))
    assert all(result.equals(want) for result in results)


def test_threads_with_their_own_options() -> None:
    options: list[dict[str, Any]] = [
        {"bit_width": bits, "zero_point": zero, "threads": threads}
        for bits in (2, 3, 4, 8)
        for zero in ("integer", "float", "symmetric")
        for threads in (1, 3)
    ]
    table = layers(1)
    want = [quantize_batch_arrow(table, **o) for o in options]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda o: quantize_batch_arrow(table, **o), options))
    assert all(g.equals(w) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize("keep", [1, 5])
def test_no_two_live_results_share_memory(keep: int) -> None:
    """Memory of dropped results is used again: never that of one that is still held."""

    def work(seed: int) -> bool:
        table = layers(seed)
        want = [value.as_py() for value in quantize_batch_arrow(table)["quantized_data"]]
        held = []
        for _ in range(20):
            held.append(quantize_batch_arrow(table))
            decoded = dequantize_batch_arrow(held[0])
            held = held[-keep:]
            assert decoded.num_rows == len(want)
        return all([v.as_py() for v in r["quantized_data"]] == want for r in held)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_result_is_dropped_in_another_thread() -> None:
    table = layers(2)
    gc.collect()
    before = library.allocated_bytes()
    handed: queue.SimpleQueue[pa.Table | None] = queue.SimpleQueue()
    rows = []

    def make() -> None:
        for _ in range(10):
            handed.put(quantize_batch_arrow(table))
        handed.put(None)

    def drop() -> None:
        while (result := handed.get()) is not None:
            rows.append(result.num_rows)
            del result  # the last reference: the maker keeps none

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(make), pool.submit(drop)]:
            done.result()
    assert rows == [4] * 10
    assert library.allocated_bytes() == before
