"""What is done with the batches of a source, or for the files of an output, on whichever engine.

Stages of files do for a file what others do with a batch, and count files as batches.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, TypeVar

from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.viewing import Viewed


class BatchOutcome(Protocol):
    """What a batch has become, with batches before it that gave nothing."""

    @property
    def batches(self) -> int:
        """How many were read."""

    def tell(self, meter: Meter) -> None:
        """Count what another process has done."""


T = TypeVar("T", bound=BatchOutcome)
T_co = TypeVar("T_co", bound=BatchOutcome, covariant=True)


class Worker(Protocol[T_co]):
    """Does a stage with batches of a source that is open."""

    def outcomes(
        self, skip: int, count: int | None, threads: int | None, meter: Meter
    ) -> Generator[T_co, None, None]:
        """Do it with so many batches, or all, without some at the beginning.

        The last outcome says of batches that came after all others.
        """


class Stage(Protocol[T_co]):
    """What is to be done. It can be pickled."""

    @property
    def count(self) -> int | None:
        """How many batches there are; None where the end of the source says it."""

    @property
    def result_bytes(self) -> int:
        """About the most that an outcome has, but of a large layer."""

    def named(self, number: int) -> str:
        """Say which batch this is, for errors."""

    def on(self, source: Viewed) -> Worker[T_co]:
        """Make what does it."""


class OfBatches:
    """What stages of batches have in common: the end of the source says how many there are."""

    @property
    def count(self) -> None:
        return None

    def named(self, number: int) -> str:
        return f"batch {number}"


class Run(Protocol):
    """Runs stages on a source that an engine is ready for."""

    @property
    def fewest_files(self) -> int | None:
        """How many files whoever runs stages makes at least as fast as parts of them.

        None where that gains nothing.
        """

    def __call__(self, stage: Stage[T], skip: int, meter: Meter) -> Generator[T, None, None]:
        """Give outcomes in the order of the source, without some batches at the beginning.

        Who leaves it before its end closes it.
        """
