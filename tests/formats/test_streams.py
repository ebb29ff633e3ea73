"""Streams go into files batch by batch, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import INPUT_SCHEMA, alive_bytes, plain
from exports import weights

from pyarrowquant import quantize_stream
from pyarrowquant.formats import write_gguf, write_mlx, write_onnx

WRITERS = [write_mlx, write_gguf, write_onnx]
COUNT = 12
BATCH_BYTES = 512 * 512 * 4


def batch(number: int) -> pa.RecordBatch:
    return plain([f"{number}.weight"], [weights(number, 512, 512)]).to_batches()[0]


@pytest.mark.usefixtures("nothing_leaked")
@pytest.mark.parametrize("write", WRITERS)
def test_memory_holds_a_few_batches(tmp_path: Path, write: Callable[..., None]) -> None:
    """And all is let go at the end: Go's results and Arrow's inputs."""
    go_before, arrow_before = alive_bytes()
    most = {"go": 0, "arrow": 0}

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(COUNT):
            yield batch(number)
            go, arrow = alive_bytes()
            most["go"] = max(most["go"], go - go_before)
            most["arrow"] = max(most["arrow"], arrow - arrow_before)

    source = pa.RecordBatchReader.from_batches(INPUT_SCHEMA, batches())
    write(
        quantize_stream(source, 4, group_size=32, scale_dtype="float16", zero_point="symmetric"),
        tmp_path / "out",
    )
    assert 0 < most["go"] <= 3 * BATCH_BYTES / 4  # results have under a quarter
    assert most["arrow"] <= 3 * BATCH_BYTES


@pytest.mark.usefixtures("nothing_leaked")
@pytest.mark.parametrize("write", [write_mlx, write_gguf])
def test_memory_holds_a_few_kept_batches(tmp_path: Path, write: Callable[..., None]) -> None:
    before = alive_bytes()[1]
    most = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal most
        for number in range(COUNT):
            yield batch(number)
            most = max(most, alive_bytes()[1] - before)

    kept = pa.RecordBatchReader.from_batches(INPUT_SCHEMA, batches())
    nothing = quantize_stream(INPUT_SCHEMA.empty_table())
    write(nothing, tmp_path / "out", unquantized=kept)
    assert BATCH_BYTES <= most <= 3 * BATCH_BYTES
