"""What quantizes the batches of a source: this process, or a cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from pyarrowquant._core.bounds import listed
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.stage import Run, Stage, T
from pyarrowquant.conversion.viewing import View, Viewed
from pyarrowquant.errors import UsageError

ENGINES = ("local", "ray", "spark")


class Engine(Protocol):
    """Runs what is done with the batches of a source."""

    def started(self, view: View, source: Viewed) -> AbstractContextManager[Run]:
        """Get ready for a source, or raise where that is not to be; done with it at the end.

        Returns
        -------
        context of Run
        """


class LocalEngine:
    """Does it in this process.

    Parameters
    ----------
    threads : int or None
        None for the CPUs of the process.
    """

    def __init__(self, threads: int | None) -> None:
        self._threads = threads

    @contextmanager
    def started(self, view: View, source: Viewed) -> Iterator[Run]:
        yield _LocalRun(source, self._threads)


@dataclass(frozen=True)
class _LocalRun:
    source: Viewed
    threads: int | None

    @property
    def fewest_files(self) -> None:
        return None

    def __call__(self, stage: Stage[T], skip: int, meter: Meter) -> Generator[T, None, None]:
        return stage.on(self.source).outcomes(skip, None, self.threads, meter)


def engine_named(name: str, address: str | None, threads: int | None) -> Engine:
    """Return the engine of a name.

    Raises
    ------
    UsageError
        There is none of the name, or the address is not for it.
    ImportError
        It is not installed.
    """
    if name not in ENGINES:
        raise UsageError(f"engine={name!r} must be one of {listed(ENGINES)}")
    if name == "local":
        if address is not None:
            raise UsageError(
                "address= is that of a cluster. Leave it out, or say engine='ray' or engine='spark'"
            )
        return LocalEngine(threads)
    if name == "ray":
        from pyarrowquant.conversion.clusters.on_ray import RayEngine

        return RayEngine(address, threads)
    from pyarrowquant.conversion.clusters.on_spark import SparkEngine

    return SparkEngine(address, threads)
