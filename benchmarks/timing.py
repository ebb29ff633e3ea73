"""Repeated timing: minimum, median and maximum, never a single figure."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Seconds of all repetitions, in order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def over(self, other: Times) -> float:
        """Median of how many times as long as another call these took, turn by turn."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))

    def rates(self, nbytes: int) -> tuple[float, float, float]:
        """Minimum, median and maximum of GB/s (10^9 bytes)."""
        return tuple(nbytes / s / 1e9 for s in (max(self.seconds), self.median, min(self.seconds)))  # type: ignore[return-value]


def measure(call: Callable[[], object], repetitions: int, warm_up: int = 1) -> Times:
    """Time a call; its result is dropped outside of the timed part."""
    return measure_in_turn({"": call}, repetitions, warm_up)[""]


def measure_in_turn(
    calls: dict[str, Callable[[], object]],
    repetitions: int,
    warm_up: int = 1,
    before: Callable[[], object] = lambda: None,
) -> dict[str, Times]:
    """Time several calls in turn, so that whatever slows the machine slows them alike.

    `before` is called before each of them, outside of the timed part.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            before()
            started = time.perf_counter()
            result = call()
            seconds[name].append(time.perf_counter() - started)
            del result
    return {name: Times(tuple(times)) for name, times in seconds.items()}
