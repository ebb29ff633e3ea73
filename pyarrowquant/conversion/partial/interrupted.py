"""What an interrupted run has left: to go on from, or to put back."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrowquant._core.locks import closing
from pyarrowquant._core.placing import (
    remove,
    restore,
    set_mode,
)
from pyarrowquant.conversion.partial.journal import journal_in
from pyarrowquant.conversion.partial.lock import (
    COMPLETE,
    RUN,
    locked,
)
from pyarrowquant.conversion.partial.noted import (
    check_same,
    folder_of,
    has_its_place,
    last_name,
    noted_at_end,
    noted_in,
    output_in,
    remove_folder,
)
from pyarrowquant.conversion.partial.parts import Done, last_part, last_placed
from pyarrowquant.conversion.partial.placing_parts import place_parts
from pyarrowquant.formats._onnx_data import remove_unused_data
from pyarrowquant.formats._outputs import clear_abandoned


@dataclass(frozen=True)
class Continued:
    """What an interrupted run has done, and another one with the same settings goes on from.

    Attributes
    ----------
    bytes : int
        Bytes of weights that are done.
    is_complete : bool
        Whether the output is complete, and only has to get its place.
    """

    bytes: int
    is_complete: bool


def continued(destination: Path, run: dict[str, Any], are_placed: bool) -> Continued | None:
    """Return what an interrupted run has left that can be continued; None if there is nothing.

    Parameters
    ----------
    destination : Path
    run : dict
        What decides about the results.
    are_placed : bool
        Whether results have their places in the output, and are not kept as parts.

    Raises
    ------
    WorkError
        It is of another run.
    BlockingIOError
        Another run is at work.
    """
    folder = folder_of(destination)
    if not folder.exists():
        return None
    with closing(locked(folder, destination)):
        found = noted_in(folder)
        if found is None:
            return None
        check_same(found, json.loads(json.dumps(run)), destination)
        done = _done_in_output(folder) if are_placed else last_part(folder)
        if found.name == COMPLETE or done is not None:
            return Continued(0 if done is None else done.read, found.name == COMPLETE)
    return None


def _done_in_output(folder: Path) -> Done | None:
    """Return how far a run is whose results have their places, the last note first."""
    return last_placed(folder) or journal_in(folder).done


def recover(destination: Path) -> bool:
    """Put back what an interrupted run has taken away, and remove what is of no use of it.

    Returns
    -------
    bool
        Whether the output is complete, and only has to get its place.

    Raises
    ------
    BlockingIOError
        Another run is at work.
    """
    clear_abandoned(destination)
    folder = folder_of(destination)
    if not folder.exists():
        return False
    lock = locked(folder, destination)
    with closing(lock):
        complete = noted_at_end(folder)
        if complete is not None:
            aside = destination.with_name(complete["aside"])
            has_place = has_its_place(destination, complete)
            if complete.get("replaces") is not None:
                last = destination.with_name(last_name(destination, complete))
                if last.exists() and not has_place:  # nothing was taken away yet
                    return True
                with suppress(FileNotFoundError, FileExistsError):  # which resuming says
                    place_parts(destination, output_in(folder), complete)
            elif has_place:
                remove(aside)
                remove_unused_data(destination, set(complete["obsolete"]))
                if complete["mode"] is not None:
                    set_mode(destination, complete["mode"])
            else:
                restore(destination, aside)
        if complete is None and not (folder / RUN).exists():  # killed at the very begin or end
            remove_folder(folder, lock)
    return complete is not None


def is_complete(destination: Path) -> bool:
    """Whether an interrupted run has left a complete output, which only has to get its place."""
    return noted_at_end(folder_of(destination)) is not None
