"""A thread that does what it is given in turn, and that no signal leaves running."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from pyarrowquant.conversion.signals import unhindered


class InTurn:
    """Has another thread do what it is given in turn, up to what fails.

    Its queues are what a signal cannot leave in a state that nothing expects: within locks of
    Python's futures and conditions it raises RuntimeError.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._results: SimpleQueue[BaseException | None] = SimpleQueue()
        self._left = 0
        self._thread = threading.Thread(target=self._work)

    def start(self) -> None:
        self._thread.start()

    def do(self, job: Callable[[], object], waiting: int) -> None:
        """Have a job done; go on when at most so many are left, or raise what one has raised."""
        self._left += 1
        self._jobs.put(job)
        del job
        while self._left > waiting or not self._results.empty():
            self._take_result()

    def wait(self) -> None:
        """Wait until all is done, or raise what one has raised."""
        while self._left:
            self._take_result()

    def end(self) -> None:
        """Wait until the thread has ended, after what it was given."""
        self._jobs.put(None)
        if self._thread.ident is not None:  # else a signal came before it was started
            self._thread.join()

    def _take_result(self) -> None:
        error = self._results.get()
        self._left -= 1
        if error is not None:
            raise error

    def _work(self) -> None:
        error: BaseException | None = None
        while (job := self._jobs.get()) is not None:
            if error is None:
                try:
                    job()
                except BaseException as raised:
                    error = raised
            del job  # with all that it holds, before the next one comes
            self._results.put(error)


@contextmanager
def in_turn() -> Iterator[InTurn]:
    """Give a thread that has ended when the context is left, also if that is by a signal.

    One that is left running would write into what is removed meanwhile.
    """
    thread = InTurn()
    try:
        with unhindered():
            thread.start()
        yield thread
    finally:
        with unhindered():
            thread.end()
