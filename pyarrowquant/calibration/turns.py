"""Functions that take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context

from greenlet import getcurrent, greenlet


def in_turns(functions: Sequence[Callable[[], object]]) -> Iterator[None]:
    """Call functions, of which each goes on to where it calls `end_turn` before any goes further.

    Gives back control after each round.
    """
    running = [greenlet(function) for function in functions]
    for each in running:
        each.gr_context = copy_context()
    try:
        while running:
            for each in running:
                each.switch()
            running = [each for each in running if not each.dead]
            yield
    finally:
        for each in running:
            each.throw()


def end_turn() -> None:
    """Let all others have their turns first; does nothing outside of `in_turns`."""
    parent = getcurrent().parent
    if parent is not None:
        parent.switch()
