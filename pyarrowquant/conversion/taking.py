"""What batches have become goes to the output, in the order of the source."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from pyarrowquant.conversion.memory import OUTCOMES_BESIDE
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.results import PlacedResults, ResultsOfRun
from pyarrowquant.conversion.placing import Placed
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.quantizing import Outcome, Quantizing
from pyarrowquant.conversion.signals import unhindered
from pyarrowquant.reading.model import Model


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
        """How far the run is by now."""
        return Done(self._batches, self._read, self._totals)

    def take(self, outcomes: Iterable[Outcome | Placed], beside: bool) -> bool:
        """Put all of them to the output.

        Parameters
        ----------
        outcomes : iterable of Outcome or Placed
            From where the run is.
        beside : bool
            Whether another thread does it, while the next ones are made.

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
                _each_beside(self._add, outcomes)
            else:
                for outcome in outcomes:
                    self._add(outcome)
                    del outcome  # before the next batch is quantized
        except _MissingError:
            self._meter.back_to(nbytes + self._read, layers + self._totals.layers)
            return False
        return True

    def _add(self, outcome: Outcome | Placed) -> None:
        if isinstance(outcome, Placed):
            self._add_placed(outcome)
            return
        self._batches += outcome.batches
        self._read += outcome.read
        self._totals.skipped += outcome.skipped
        self._totals.missed += outcome.missed
        self._totals.underflows += outcome.underflows
        if outcome.results is not None:
            self.quantizing.check(outcome.results, self._model)
            self._totals.add(outcome.results, self.quantizing.layers_in(outcome.results))
            self._results.add(outcome.results, self.done)

    def _add_placed(self, outcome: Placed) -> None:
        assert isinstance(self._results, PlacedResults)  # which alone are shared
        if not self._results.has(outcome.written):
            raise _MissingError
        self._batches += outcome.batches
        self._read += outcome.read
        self._totals.include(outcome.totals)
        self._results.take(outcome.written, self.done)


class _MissingError(Exception):
    """What a worker has written is not in the output, as this machine sees it."""


def _each_beside(
    add: Callable[[Outcome | Placed], None], outcomes: Iterable[Outcome | Placed]
) -> None:
    """Add each outcome in another thread, while the next ones are made.

    One may wait to be added: writing it takes longer than making the next one. After one that
    fails none is added.
    """

    def add_after(before: Future[None] | None, outcome: Outcome | Placed) -> None:
        if before is not None:
            before.result()
        add(outcome)

    with _one_thread() as other:
        added: deque[Future[None]] = deque()
        for outcome in outcomes:
            last = added[-1] if added else None
            added.append(other.submit(add_after, last, outcome))
            del outcome  # which is to go when it is added
            if len(added) > OUTCOMES_BESIDE:
                added.popleft().result()
        for each in added:
            each.result()


@contextmanager
def _one_thread() -> Iterator[ThreadPoolExecutor]:
    """Give a thread that has ended when the context is left, also if that is by a signal.

    A signal within `submit` would leave a thread that nobody knows yet, and one while it is waited
    for would leave it running: it would write into what is removed meanwhile.
    """
    other = ThreadPoolExecutor(1)
    try:
        with unhindered():
            other.submit(int).result()  # from now on submit starts no thread
        yield other
    finally:
        with unhindered():
            other.shutdown()
