"""Whether an output may go to a place in a store, before any work."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from pyarrowquant.conversion.destination import source_error
from pyarrowquant.conversion.stores.store import Store
from pyarrowquant.conversion.stores.stored_work import journal_or_none
from pyarrowquant.formats._gguf_split import is_part_of, part_name
from pyarrowquant.formats._origin import Split
from pyarrowquant.formats._outputs import (
    check_any_of_model,
    exists_error,
    is_replaceable,
    would_be_lost,
    wrong_kind_error,
)
from pyarrowquant.formats.registry import IN_FOLDERS
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.model import Model


def check_stored(
    store: Store,
    overwrite: bool,
    folder: bool,
    split: Split | None,
    source: Model,
    written: Callable[[], Collection[Path]],
) -> None:
    """Refuse what cannot be written, before any work.

    What an interrupted run has put there is what the next one removes or goes on from.

    Parameters
    ----------
    store : Store
    overwrite : bool
        Whether what is there may be replaced.
    folder : bool
        Whether the destination is a folder.
    split : Split or None
    source : Model
        What is read, which must not be replaced.
    written : callable
        Returns the files that are written beside weights and config.json, relative to the
        destination.
    """
    is_file = store.has_file()
    names = set() if is_file else set(store.names_within())
    if is_file if folder else names:
        raise wrong_kind_error(store, folder)
    if folder:
        names |= {CONFIG} if store.has_file(CONFIG) else set()  # lists may lack what is new
    elif split is None:
        names = {store.name} if is_file else set()
    else:
        part = part_name(split.name, 1, 1)
        names = {name for name in store.names_beside() if is_part_of(name, part)}
    before = journal_or_none(store)
    there = names if before.replaces else names - before.names
    if not there:
        return
    if not overwrite:
        raise exists_error(store)
    if any(store.holds(file) for file in source.files):
        raise source_error(store, folder)
    if folder:
        _check_replaceable(store, there, written())


def _check_replaceable(store: Store, names: Collection[str], written: Collection[Path]) -> None:
    """Raise where replacing what is there would lose what is not of a model."""
    check_any_of_model(str(store), names, IN_FOLDERS)
    for name in sorted(names):
        of_model = "/" not in name and is_replaceable(name, written, IN_FOLDERS)
        if not (of_model or Path(name) in written):
            raise would_be_lost(str(store), f"'{name}'")
