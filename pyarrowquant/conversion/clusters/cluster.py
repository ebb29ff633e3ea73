"""What the driver of a cluster does: it starts tasks, and takes what they give in order."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from pyarrowquant._version import __version__
from pyarrowquant.conversion.clusters.worker import (
    Answer,
    Failure,
    Seen,
    Tasks,
    WorkerError,
    files_everywhere,
    version_problem,
)
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.source import is_local
from pyarrowquant.conversion.stage import BatchOutcome, Stage
from pyarrowquant.conversion.viewing import View, Viewed
from pyarrowquant.errors import QuantizationError, users_level

T = TypeVar("T", bound=BatchOutcome)
Handle = TypeVar("Handle")

TASKS_A_SLOT = 2  # one runs, and one waits


class Started(Protocol[Handle]):
    """The tasks of a stage on a cluster."""

    def room(self) -> int:
        """Return how many may be under way, those included that are done and not taken."""

    def start(self, number: int) -> Handle:
        """Start the task of the batch of this number."""

    def take(self, handle: Handle, number: int) -> Answer | Failure:
        """Wait for what a task gives."""

    def cancel(self, handles: Sequence[Handle]) -> None:
        """Have no task left."""


def seen_here(view: View, source: Viewed) -> Seen:
    """Describe a source as all workers have to see it."""
    if is_local(source.model):
        view = replace(view, source=os.path.abspath(source.model.location.path))
    return Seen(view, files_everywhere(source), __version__)


@dataclass(frozen=True)
class ClusterRun:
    """Runs stages as tasks.

    Attributes
    ----------
    seen : Seen
    threads : int
        Of a task.
    slots : int
        How many tasks the cluster has room for when the run begins.
    started : callable
        Starts the tasks of a stage.
    """

    seen: Seen
    threads: int
    slots: int
    started: Callable[[Tasks], Started[Any]]

    @property
    def fewest_files(self) -> int:
        """As many as tasks that run at a time, as with fewer some have nothing to do."""
        return self.slots

    def __call__(self, stage: Stage[T], skip: int, meter: Meter) -> Generator[T, None, None]:
        tasks = Tasks(self.seen, stage, self.threads)
        return _outcomes(self.started(tasks), stage, skip, meter, self.seen.view.source)


def _outcomes(
    tasks: Started[Handle], stage: Stage[BatchOutcome], skip: int, meter: Meter, source: str
) -> Generator[Any, None, None]:
    """Give the outcomes of batches in their order, as many of which are done as have room."""
    running: deque[tuple[int, Handle]] = deque()
    following = skip
    is_whole = False
    try:
        while not is_whole:
            while following != stage.count and len(running) < tasks.room():
                running.append((following, tasks.start(following)))
                following += 1
            if not running:
                break
            number, handle = running[0]
            found = tasks.take(handle, number)
            running.popleft()
            del handle  # so that the cluster may forget the results, once they are used
            answer = _answered(found, stage.named(number), source)
            del found
            for category, text in answer.warnings:
                warnings.warn(text, category, stacklevel=users_level())
            is_whole = not any(outcome.batches for outcome in answer.outcomes)
            for outcome in answer.outcomes:
                yield outcome
                outcome.tell(meter)
            del answer, outcome
    finally:
        tasks.cancel([handle for _, handle in running])


def _answered(found: Answer | Failure, what: str, source: str) -> Answer:
    """Return what a task gives; raise where that is an error, and say where it was."""
    if isinstance(found, Answer):
        return found
    cause = found.error
    if isinstance(cause, WorkerError):
        raise worker_error(found.worker, str(cause))
    text = f"{cause} ({what} of '{source}' on the worker {found.worker})"
    if isinstance(cause, QuantizationError):
        raise QuantizationError(text, cause.errors)
    kinds = (ValueError, OSError, ImportError, MemoryError)
    raise next(kind for kind in kinds if isinstance(cause, kind))(text) from cause


def worker_error(worker: str, problem: str) -> WorkerError:
    """Say what is wrong with a worker."""
    return WorkerError(f"Worker {worker} {problem}")


def lost(cluster: str, number: int, tasks: Tasks, said: str) -> ConnectionError:
    """Make the error that a cluster has given a task up."""
    what, source = tasks.stage.named(number), tasks.seen.view.source
    return ConnectionError(
        f"{cluster} could not do {what} of '{source}': {said}. resume=True tries it again"
    )


def check_worker(name: str, version: str | None, problem: str | None, wanted: str) -> None:
    """Raise where a worker's answer to `question` says that it cannot do tasks."""
    if version != wanted:
        problem = version_problem(version, wanted)
    if problem is not None:
        raise worker_error(name, problem)


def question() -> Callable[[bytes, str], tuple[str | None, str | None]]:
    """Return a function that a worker can run which lacks the package, or has another version.

    An engine takes it along as it is, since it is no function of a module. It gets a `Seen` as
    pickle has it, and the version of the driver. It returns the version of the package, None
    without one, and, where that is the driver's, what is wrong with the source.
    """

    def ask(said: bytes, wanted: str) -> tuple[str | None, str | None]:
        import pickle

        try:
            from pyarrowquant import __version__ as version
        except ImportError:
            return None, None
        if version == wanted:
            try:
                pickle.loads(said).open()
            except ValueError as error:
                return version, str(error)
        return version, None

    return ask


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
