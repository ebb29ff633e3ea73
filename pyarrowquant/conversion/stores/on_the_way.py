"""Folders of this machine for files that are on their way to a store."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrowquant._core.scratch import Scratch, clear


@contextmanager
def on_the_way(store: object) -> Iterator[Path]:
    """Give a temporary folder for what goes to a store; what dead processes have left is removed.

    Parameters
    ----------
    store : Store or str
        What messages call it.
    """
    digest = hashlib.sha256(str(store).encode()).hexdigest()[:16]
    target = Path(tempfile.gettempdir(), f"pyarrowquant-{digest}")
    clear(target, _nothing_stays)
    scratch = Scratch(target, _nothing_stays)
    folder = scratch.open()
    try:
        made = folder / "made"  # apart from the folder's lock
        made.mkdir()
        yield made
    finally:
        scratch.close()


def _nothing_stays(_folder: Path) -> None:
    """Keep nothing of the folder: what counts is in the store."""
