"""Errors of the system say which file they are about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming_file(path: object) -> Iterator[None]:
    """Name a file in an error of the system within the context that names none."""
    try:
        yield
    except OSError as error:
        name_file(error, path)
        raise


def name_file(error: BaseException | None, path: object) -> None:
    """Raise an error anew with the name of a file, if it is the system's and names none.

    So are those of reading, writing, syncing and closing what is open.
    """
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
