"""Results are written and noted by other threads, which a signal does not leave running."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from pyarrowquant.conversion.taking import _NOTES_BESIDE, _each_beside


def nothing(_: Callable[[], object]) -> None:
    pass


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
            _each_beside(nothing, add, ["outcome"])  # type: ignore[list-item]
        assert written == ["outcome"]
    finally:
        left.set()


def test_notes_come_in_turn_after_what_needs_no_results() -> None:
    said: list[object] = []
    has_added = threading.Event()

    def begin(go_on: Callable[[], object]) -> None:
        has_added.wait()  # results do not wait for it
        go_on()
        said.append("begun")

    def add(outcome: Any) -> Callable[[], object]:
        has_added.set()
        return lambda: said.append(outcome)

    _each_beside(begin, add, range(100))  # type: ignore[arg-type]
    assert said == ["begun", *range(100)]


def test_after_what_fails_nothing_is_noted() -> None:
    said: list[object] = []

    def add(outcome: Any) -> Callable[[], object] | None:
        def note() -> None:
            if outcome == 3:
                raise OSError("full")
            said.append(outcome)

        return note

    with pytest.raises(OSError, match="full"):
        _each_beside(nothing, add, range(100))  # type: ignore[arg-type]
    assert said == [0, 1, 2]


def test_what_is_on_its_way_to_the_disk_is_bounded() -> None:
    """Else all of an output could be in memory that waits for a slow disk."""
    added: list[Any] = []
    is_full, is_over = threading.Event(), threading.Event()

    def begin(_: Callable[[], object]) -> None:
        is_over.wait()

    def add(outcome: Any) -> Callable[[], object]:
        added.append(outcome)
        if len(added) == _NOTES_BESIDE:
            is_full.set()
        return lambda: None

    def outcomes() -> Iterator[Any]:
        for outcome in range(100):
            if outcome == _NOTES_BESIDE + 1:  # the last that is made while none is noted
                is_full.wait()
                assert len(added) == _NOTES_BESIDE
                is_over.set()
            yield outcome

    _each_beside(begin, add, outcomes())
    assert added == list(range(100))


def test_an_interrupt_breaks_off_what_needs_no_results() -> None:
    """A model of which most is kept takes minutes."""
    begun = threading.Event()

    def begin(go_on: Callable[[], object]) -> None:
        while True:
            begun.set()
            go_on()

    def outcomes() -> Iterator[Any]:
        begun.wait()
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        _each_beside(begin, lambda _: None, outcomes())


def test_what_needs_no_results_fails_while_nothing_is_added() -> None:
    def begin(_: Callable[[], object]) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        _each_beside(begin, lambda _: None, ())


def test_a_signal_before_a_thread_starts_leaves_none_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        _each_beside(nothing, lambda _: None, ["outcome"])  # type: ignore[list-item]
    assert threading.active_count() == before
