"""What batches have become goes to the output, in the order of the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pyarrowquant.conversion.in_turn import in_turn
from pyarrowquant.conversion.memory import OUTCOMES_BESIDE
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.results import Note, PlacedResults, ResultsOfRun
from pyarrowquant.conversion.placing import Placed
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.quantizing import Outcome, Quantizing
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

    with in_turn() as notes, in_turn() as added:
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
