"""What a worker of a cluster does with the batches of a source, whichever engine runs it."""

from __future__ import annotations

import pickle
import secrets
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyarrowquant._version import __version__
from pyarrowquant.conversion.partial.identity import source_files
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.stage import BatchOutcome, Stage, Worker
from pyarrowquant.conversion.viewing import View, Viewed
from pyarrowquant.reading.uris import shown_uri

_PIECE = 2**26  # bytes
_SAME_EVERYWHERE = ("name", "bytes", "ends")


class WorkerError(ValueError):
    """A worker cannot do what it is told to: it sees other files, or has another version."""


@dataclass(frozen=True)
class Seen:
    """A source as the driver sees it, which all workers have to see likewise.

    Attributes
    ----------
    view : View
    files : list of dict
        What tells its files from others.
    version : str
        Of the package that the driver has.
    """

    view: View
    files: list[dict[str, Any]]
    version: str

    def open(self) -> Viewed:
        """Open the source on the machine of a worker.

        Raises
        ------
        WorkerError
            This is another source, or there is none.
        """
        if self.version != __version__:
            raise WorkerError(version_problem(__version__, self.version))
        try:
            source = self.view.of(self.view.open())
            files = files_everywhere(source)
        except (OSError, ValueError, ImportError) as error:
            raise WorkerError(
                f"cannot open '{shown_uri(self.view.source)}': {error}. Put it where all machines "
                "find it under this name: on a shared file system or in a store"
            ) from error
        if files != self.files:
            raise WorkerError(
                f"finds other files under '{shown_uri(self.view.source)}' than the driver. Give "
                "all machines the same"
            )
        return source


def version_problem(found: str | None, wanted: str) -> str:
    """Say of a worker that it has another version than the driver, or none."""
    has = "has no pyarrowquant" if found is None else f"has pyarrowquant {found}"
    return f"{has}, and the driver {wanted}. Install pyarrowquant {wanted} on the workers"


def files_everywhere(source: Viewed) -> list[dict[str, Any]]:
    """Describe the files of a source by what is the same on every machine that has them."""
    return [{name: file[name] for name in _SAME_EVERYWHERE} for file in source_files(source.model)]


@dataclass(frozen=True)
class Tasks:
    """What is the same for all tasks of a run.

    Attributes
    ----------
    seen : Seen
    stage : Stage
    threads : int
        That a task has.
    run : str
        Tells it from other runs.
    """

    seen: Seen
    stage: Stage[BatchOutcome]
    threads: int
    run: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True)
class Answer:
    """What a task gives back.

    Attributes
    ----------
    outcomes : list of BatchOutcome
        Of its batch; of none where the source has ended before.
    warnings : list of (type, str)
        What was told meanwhile.
    """

    outcomes: Sequence[BatchOutcome]
    warnings: list[tuple[type[Warning], str]]


@dataclass(frozen=True)
class Failure:
    """What a task gives back where it cannot do its batch.

    Attributes
    ----------
    error : Exception
    worker : str
        The name of the machine.
    """

    error: Exception
    worker: str


_last: dict[str, Worker[BatchOutcome]] = {}  # by its run: a process does one task after the other


def do_batch(tasks: bytes, number: int) -> Answer | Failure:
    """Do a task: that with the batch of this number, of `Tasks` as pickle has them.

    Opening these may fail, too, as that of a store does which this machine does not reach.
    """
    try:
        return _done(pickle.loads(tasks), number)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        return Failure(error, socket.gethostname())


def _done(tasks: Tasks, number: int) -> Answer:
    worker = _last.get(tasks.run)
    if worker is None:
        _last.clear()
        worker = tasks.stage.on(tasks.seen.open())
        _last[tasks.run] = worker
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        found = list(worker.outcomes(number, 1, tasks.threads, Meter(None, None)))
    return Answer(found, [(each.category, str(each.message)) for each in told])


def in_pieces(answer: Answer | Failure) -> Iterator[bytes]:
    """Give an answer as pickle has it, in pieces that any engine takes."""
    data = memoryview(pickle.dumps(answer))
    for start in range(0, len(data), _PIECE):
        yield bytes(data[start : start + _PIECE])
