"""What batches have become goes to the output, in the order of the source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue

from pyarrowquant.conversion.memory import OUTCOMES_BESIDE
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.results import Note, PlacedResults, ResultsOfRun
from pyarrowquant.conversion.placing import Placed
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.quantizing import Outcome, Quantizing
from pyarrowquant.conversion.signals import unhindered
from pyarrowquant.reading.model import Model

_NOTES_BESIDE = 8  # batches that are written, and on their way to the disk


class Taking:
    """Puts what batches have become to the output.

    Parameters
    ----------
    results : ResultsOfRun
        Where it goes.
    quantizing : Quantizing
    model : Model
    done : Done
        How far the run is.
    meter : Meter
    """

    def __init__(
        self,
        results: ResultsOfRun,
        quantizing: Quantizing,
        model: Model,
        done: Done,
        meter: Meter,
    ) -> None:
        self.quantizing = quantizing
        self._results = results
        self._model = model
        self._meter = meter
        self._batches, self._read, self._totals = done.batches, done.read, done.totals

    @property
    def done(self) -> Done:
        """How far the run is by now; it stays so."""
        return Done(self._batches, self._read, self._totals.copy())

    def begin(self) -> None:
        """Write what needs no results, unless that is there."""
        self._results.begin(lambda: None)

    def take(self, outcomes: Iterable[Outcome | Placed], beside: bool) -> bool:
        """Put all of them to the output.

        Parameters
        ----------
        outcomes : iterable of Outcome or Placed
            From where the run is.
        beside : bool
            Whether other threads do it, while the next ones are made.

        Returns
        -------
        bool
            False where something is not in the output that a worker has written there. That, and
            what comes after it, is left out.
        """
        nbytes, layers = self._meter.taken
        nbytes -= self._read
        layers -= self._totals.layers
        try:
            if beside:
                _each_beside(self._results.begin, self._add, outcomes)
            else:
                self.begin()
                for outcome in outcomes:
                    if (note := self._add(outcome)) is not None:
                        note()
                    del outcome  # before the next batch is quantized
        except _MissingError:
            self._meter.back_to(nbytes + self._read, layers + self._totals.layers)
            return False
        return True

    def _add(self, outcome: Outcome | Placed) -> Note | None:
        if isinstance(outcome, Placed):
            return self._add_placed(outcome)
        self._batches += outcome.batches
        self._read += outcome.read
        self._totals.skipped += outcome.skipped
        self._totals.missed += outcome.missed
        self._totals.underflows += outcome.underflows
        if outcome.results is None:
            return None
        self._totals.told += self.quantizing.check(outcome.results, self._model)
        self._totals.add(outcome.results, self.quantizing.layers_in(outcome.results))
        return self._results.add(outcome.results, self.done)

    def _add_placed(self, outcome: Placed) -> Note:
        assert isinstance(self._results, PlacedResults)  # which alone are shared
        if not self._results.has(outcome.written):
            raise _MissingError
        self._batches += outcome.batches
        self._read += outcome.read
        self._totals.include(outcome.totals)
        return self._results.take(outcome.written, self.done)


class _MissingError(Exception):
    """What a worker has written is not in the output, as this machine sees it."""


def _each_beside(
    begin: Callable[[Callable[[], object]], object],
    add: Callable[[Outcome | Placed], Note | None],
    outcomes: Iterable[Outcome | Placed],
) -> None:
    """Add each outcome in another thread, and note it in a third one, while others are made.

    One may wait to be added: writing it takes longer than making the next one. What is noted has
    to be on the disk, for which the third thread waits, after it has begun the output.
    """
    is_broken_off = False

    def go_on() -> None:
        if is_broken_off:
            raise _BrokenOffError

    def add_and_note(outcome: Outcome | Placed) -> None:
        if (note := add(outcome)) is not None:
            notes.do(note, waiting=_NOTES_BESIDE)

    with _in_turn() as notes, _in_turn() as added:
        try:
            notes.do(partial(begin, go_on), waiting=1)
            for outcome in outcomes:
                added.do(partial(add_and_note, outcome), waiting=OUTCOMES_BESIDE)
                del outcome  # which is to go when it is added
            added.wait()
            notes.wait()
        except BaseException:
            is_broken_off = True
            raise


class _BrokenOffError(Exception):
    """Nothing needs any more what is being written."""


class _InTurn:
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
def _in_turn() -> Iterator[_InTurn]:
    """Give a thread that has ended when the context is left, also if that is by a signal.

    One that is left running would write into what is removed meanwhile.
    """
    thread = _InTurn()
    try:
        with unhindered():
            thread.start()
        yield thread
    finally:
        with unhindered():
            thread.end()
