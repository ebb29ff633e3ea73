"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import click

from pyarrowquant.cli._show import counted, size_text
from pyarrowquant.conversion.progress import Step

_SECONDS_BETWEEN_LINES = 2.0


class Shown:
    """Shows the steps of a conversion, or how many tokens a model has read."""

    def __init__(self) -> None:
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
        text = f"{layers}{size_text(step.bytes)}{of}"
        self._show(step.what, step.bytes, step.total, "B", text)

    def tokens(self, what: str, done: int, total: int) -> None:
        """Show how many tokens are done."""
        self._show(what, done, total, "tokens", f"{done:,} of {total:,} tokens")

    def _show(self, what: str, done: int, total: int | None, unit: str, text: str) -> None:
        if sys.stderr.isatty():
            self._draw(what, done, total, unit)
        elif time.monotonic() >= self._next_line:
            click.echo(f"{what}: {text}", err=True)
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
