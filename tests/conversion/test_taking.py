"""Results are written by another thread, which a signal does not leave running."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress

import pytest

from pyarrowquant.conversion import taking


def test_a_signal_while_the_thread_starts_leaves_none_that_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, left = threading.Event(), threading.Event()
    written: list[object] = []
    is_hindered = False
    original = threading.Thread.start

    def start(self: threading.Thread) -> None:
        nonlocal is_hindered
        is_hindered = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        original(self)
        if is_hindered:
            begun.wait()
            raise KeyboardInterrupt

    def add(outcome: object) -> None:
        begun.set()
        if is_hindered:
            left.wait()
        written.append(outcome)

    monkeypatch.setattr(threading.Thread, "start", start)
    try:
        with suppress(KeyboardInterrupt):
            taking._each_beside(add, ["outcome"])  # type: ignore[list-item]
        assert written == ["outcome"]
    finally:
        left.set()
