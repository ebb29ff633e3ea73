"""Progress of a call: a bar, or a function of the caller."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pyarrowquant._core.arguments import Progress
from pyarrowquant._core.quoting import in_line, quoted
from pyarrowquant.errors import users_level


@dataclass(frozen=True)
class EachPart:
    """A function that is told of parts of layers, too, and whose exceptions end the work.

    Attributes
    ----------
    tell : callable
        Gets the name of a layer that has finished, or None for a part of one; bytes that are done;
        and all bytes, or None if that is not known.
    """

    tell: Callable[[str | None, int, int | None], object]


class Reporter:
    """Tell the caller about layers as they finish, over one or more jobs; the bar of parts, too.

    Parameters
    ----------
    progress : True, callable, EachPart, None or False
    whole : int or None
        Sum of the sizes that will be given to `start`; None if it is not known, and the
        fraction is then of what has been read.
    """

    def __init__(self, progress: Progress | EachPart, whole: int | None) -> None:
        self._progress = progress
        self._whole = whole
        self._before = 0
        self._size = 0
        self._fraction = 0.0
        self._bar: Any = None

    def __enter__(self) -> Reporter | None:
        return self if self._progress else None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def start(self, size: int) -> None:
        """Begin the next job, of this size."""
        self._before += self._size
        self._size = size
        if self._progress is True and self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._whole, desc="quantize", unit="B", unit_scale=True)

    def told(self, layer_name: str | None, done: int, total: int) -> None:
        """Report a layer, or with None a part of one, after which so much of the job is done."""
        size = self._size * done / total if total else self._size
        if isinstance(self._progress, EachPart):
            self._progress.tell(layer_name, round(self._before + size), self._whole)
            return
        whole = self._whole or self._before + self._size
        fraction = (self._before + size) / whole if whole else 1.0
        self._fraction = max(self._fraction, fraction)
        if self._progress is True:
            if layer_name is not None:
                self._bar.set_postfix_str(in_line(layer_name), refresh=False)
            self._bar.update(round(self._before + size) - self._bar.n)
        elif callable(self._progress) and layer_name is not None:
            try:
                self._progress(layer_name, self._fraction)
            except Exception as error:
                warnings.warn(
                    f"progress failed at layer {quoted(layer_name)}: {error!r}. The work goes on",
                    RuntimeWarning,
                    stacklevel=users_level(),
                )
