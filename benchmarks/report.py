"""Rows of a run, as lines, JSON and Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from timing import Times

MIB = 1 << 20


@dataclass
class Row:
    """One measurement.

    Attributes
    ----------
    times, limit_times : Times
        Of the call, and in turn with it of a loop over memory with as many threads.
    ratio : float
        Median over turns of its rate, divided by that of the loop.
    times_slower : float or None
        For other quantizers: median over turns of how many times as long as this package they
        take, a byte.
    """

    group: str
    name: str
    threads: int
    nbytes: int
    times: Times
    limit_times: Times
    limit: str
    ratio: float
    times_slower: float | None = None

    def cells(self) -> list[str]:
        low, middle, high = self.times.rates(self.nbytes)
        digits = 2 if middle >= 0.1 else 4
        cells = [self.name, str(self.threads), f"{middle:.{digits}f}"]
        cells.append(f"{low:.{digits}f} .. {high:.{digits}f}")
        cells += [f"{self.times.median * 1e3:.1f}", f"{self.ratio:.{digits}f} of {self.limit}"]
        cells.append("" if self.times_slower is None else f"{self.times_slower:.1f}")
        return cells

    def line(self) -> str:
        name, threads, middle, spread, milliseconds, ratio, slower = self.cells()
        return (
            f"{self.group:22} {name:24} {threads} threads {middle:>8} GB/s ({spread})"
            f" {milliseconds:>7} ms  {ratio}{slower and f', {slower} times slower'}"
        )

    def record(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "name": self.name,
            "threads": self.threads,
            "bytes": self.nbytes,
            "seconds": self.times.seconds,
            "limit": self.limit,
            "limit_seconds": self.limit_times.seconds,
            "ratio": self.ratio,
            "times_slower": self.times_slower,
        }


def markdown(machine: dict[str, str], rows: list[Row], empty: Times, peak: dict[str, int]) -> str:
    """Tables of all rows, a table a group."""
    lines = [
        f"Measured on {machine['date']}, {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}.",
        "",
    ]
    for group, members in groupby(rows, key=lambda row: row.group):
        lines += [
            f"**{group}**",
            "",
            "| | threads | GB/s (median) | min .. max | ms (median) | ratio | times slower |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += ["| " + " | ".join(row.cells()) + " |" for row in members]
        lines.append("")
    lines.append(
        f"A call on an empty table takes {empty.median * 1e6:.0f} us in a process of its own. "
        f"One call on 1 GiB takes {peak['above'] / MIB:.0f} MiB above its input, "
        f"of which the result is {peak['result'] / MIB:.0f} MiB."
    )
    return "\n".join(lines) + "\n"
