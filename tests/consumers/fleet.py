"""What the tests of several engines share: layers, and a worker that is killed in the middle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from child import HANG, wait_until

import pyarrowquant

ROWS = 32


def layers(rows: int = ROWS) -> pa.Table:
    """A table of weights, in the order of the names."""
    rng = np.random.default_rng(0)
    named = {
        f"layer.{i:02}": rng.standard_normal((32, 64 + i), dtype=np.float32) for i in range(rows)
    }
    return pyarrowquant.numpy_to_arrow_table(named)


def with_bad_layer() -> pa.Table:
    """The same, of which the third has a NaN."""
    rows = layers().to_pylist()
    rows[2]["weights"][5] = float("nan")
    return pa.Table.from_pylist(rows, schema=layers().schema)


BAD = "layer.02"


def take_part(folder: Path, worker: str) -> None:
    """Play a task: the first worker to come is the victim, which stops in its second task.

    The files say what happened: "victim" has its name, "stopped" is there when it has stopped.
    """
    try:
        with (folder / "victim").open("x") as file:
            file.write(worker)
        return
    except FileExistsError:
        pass
    if (folder / "victim").read_text() == worker:
        (folder / "stopped").touch()
        threading.Event().wait(HANG)


def kill_in_the_middle(folder: Path, kill: Callable[[str], None]) -> threading.Thread:
    """Start a thread that kills the victim once it has stopped."""

    def wait_and_kill() -> None:
        assert wait_until((folder / "stopped").exists)
        kill((folder / "victim").read_text())

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread
