"""What a run has left that cannot be read any more, or is of another run."""

from __future__ import annotations

from pathlib import Path

# What files that are no more as they were written raise where they are read.
DAMAGES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class WorkError(ValueError):
    """What an interrupted run has left cannot be continued."""


def damaged(file: Path | str, error: Exception) -> WorkError:
    return WorkError(
        f"'{file}' of an earlier run is damaged ({error}). Without resume=True, a new run begins"
    )
