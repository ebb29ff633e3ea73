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

    def rates(self, nbytes: int) -> tuple[float, float, float]:
        """Minimum, median and maximum of GB/s (10^9 bytes)."""
        return tuple(nbytes / s / 1e9 for s in (max(self.seconds), self.median, min(self.seconds)))  # type: ignore[return-value]


def measure(call: Callable[[], object], repetitions: int, warm_up: int = 1) -> Times:
    """Time a call; its result is dropped outside of the timed part."""
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - started)
        del result
    return Times(tuple(seconds))
