"""Progress on standard error: a bar on a terminal, elsewhere plain lines, or lines of JSON."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from types import TracebackType
from typing import Any

import click

from pyarrowquant.cli._show import counted, size_text
from pyarrowquant.conversion.progress import Step

_SECONDS_BETWEEN_LINES = 2.0


class Shown:
    """Shows the steps of a conversion, or how many tokens a model has read.

    Parameters
    ----------
    as_json : bool
        Whether lines are JSON.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._bar: Any = None
        self._what = ""
        self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES

    def __enter__(self) -> Shown:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def __call__(self, step: Step) -> None:
        of = f" of {size_text(step.total)}" if step.total else ""
        layers = f"{counted(step.layers, 'layer')}, " if step.what == "quantize" else ""
        text = f"{step.what}: {layers}{size_text(step.bytes)}{of}"
        line = json.dumps(asdict(step)) if self._as_json else text
        self._show(step.what, step.bytes, step.total, "B", line)

    def tokens(self, what: str, done: int, total: int) -> None:
        """Show how many tokens are done."""
        said = json.dumps({"what": what, "tokens": done, "total": total})
        line = said if self._as_json else f"{what}: {done:,} of {total:,} tokens"
        self._show(what, done, total, "tokens", line)

    def _show(self, what: str, done: int, total: int | None, unit: str, line: str) -> None:
        if sys.stderr.isatty():
            self._draw(what, done, total, unit)
        elif time.monotonic() >= self._next_line:
            click.echo(line, err=True)
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES

    def _draw(self, what: str, done: int, total: int | None, unit: str) -> None:
        if what != self._what:
            from tqdm import tqdm

            self._close()
            self._what = what
            self._bar = tqdm(total=total, initial=done, desc=what, unit=unit, unit_scale=True)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
