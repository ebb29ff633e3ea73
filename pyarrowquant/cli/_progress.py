"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import click

from pyarrowquant.cli._show import size_text
from pyarrowquant.conversion.progress import Step

_SECONDS_BETWEEN_LINES = 2.0


class Shown:
    """Shows the steps of a conversion."""

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
        if sys.stderr.isatty():
            self._draw(step)
        elif time.monotonic() >= self._next_line:
            of = f" of {size_text(step.total)}" if step.total else ""
            layers = f"{step.layers} layers, " if step.what == "quantize" else ""
            click.echo(f"{step.what}: {layers}{size_text(step.bytes)}{of}", err=True)
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES

    def _draw(self, step: Step) -> None:
        if step.what != self._what:
            from tqdm import tqdm

            self._close()
            self._what = step.what
            self._bar = tqdm(
                total=step.total,
                initial=step.bytes,
                desc=step.what,
                unit="B",
                unit_scale=True,
            )
        self._bar.update(step.bytes - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
