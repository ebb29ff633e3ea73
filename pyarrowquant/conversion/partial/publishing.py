"""A complete output gets its place, which an interrupted run may have begun to give it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyarrowquant._core.placing import (
    contents,
    exchange,
    is_empty_folder,
    keeping_modes,
    mode_of,
    place,
    sync,
    take_over_mode,
)
from pyarrowquant.conversion.partial.placing_parts import place_parts
from pyarrowquant.formats._onnx_data import remove_unused_data


class Publishing:
    """What is complete, on its way to its place.

    Parameters
    ----------
    destination : Path
    folder : Path
        Where the files of the output lie, with the names that they will have.
    complete : dict
        What the run has noted of it.
    note : callable
        Notes that on the disk, with something more.
    """

    def __init__(
        self,
        destination: Path,
        folder: Path,
        complete: dict[str, Any],
        note: Callable[[dict[str, Any]], None],
    ) -> None:
        self._destination = destination
        self._folder = folder
        self._complete = complete
        self._write = note

    def publish(
        self,
        overwrite: bool,
        check: Callable[[Path], object],
        data_of: Callable[[Path], set[str]],
    ) -> None:
        """Give the output its place, unless it has it; a folder replaces another as a whole.

        Parameters
        ----------
        overwrite : bool
            Whether what is there may be replaced.
        check : callable
            Raises where that must not be replaced all the same.
        data_of : callable
            Returns the names of files beside what is there that belong to it, and go with it.
        """
        expected: dict[str, Any] = self._complete["output"]
        if self._destination.name not in expected:
            self._publish_parts(overwrite, check, data_of)
            return
        # Of several files the one with the name that was asked for comes last.
        for name in sorted(expected, key=lambda name: name == self._destination.name):
            target, new = self._destination.with_name(name), self._folder / name
            if contents(target) == expected[name]:  # a run that was killed has done it
                continue
            if contents(new) != expected[name]:
                raise FileNotFoundError(
                    f"'{target}' was complete, and is not there any more or has changed since. "
                    "Without resume=True, a new run begins"
                )
            if target != self._destination:  # named by what it has, so it replaces nothing else
                if self._destination.exists():
                    take_over_mode(new, self._destination)
                os.replace(new, target)
                continue
            noted = {
                **self._complete,
                "obsolete": sorted(data_of(target)) if overwrite else [],
                "mode": mode_of(target) if target.is_dir() else None,
            }
            if noted != self._complete:
                self._note(noted)
            self._put(new, target, overwrite, check)
        sync(self._destination.parent)
        remove_unused_data(self._destination, set(self._complete["obsolete"]))

    def _publish_parts(
        self,
        overwrite: bool,
        check: Callable[[Path], object],
        data_of: Callable[[Path], set[str]],
    ) -> None:
        """Give the files of an output that is split their names."""
        expected: dict[str, Any] = self._complete["output"]
        if self._complete["replaces"] is None:
            targets = [self._destination.with_name(name) for name in expected]
            there = [target for target in targets if os.path.lexists(target)]
            for target in there:
                if not overwrite:
                    raise _made_meanwhile(target)
                check(target)
            others = data_of(self._destination) - expected.keys() if overwrite else ()
            replaces = sorted(target.name for target in there)
            self._note({**self._complete, "replaces": replaces, "obsolete": sorted(others)})
        place_parts(self._destination, self._folder, self._complete)

    def _put(
        self, new: Path, target: Path, overwrite: bool, check: Callable[[Path], object]
    ) -> None:
        exists = os.path.lexists(target) and not (new.is_dir() and is_empty_folder(target))
        if exists and overwrite:
            check(target)
        try:
            with keeping_modes(new, target):
                if not (exists and overwrite):
                    place(new, target)
                elif new.is_dir():
                    exchange(new, target, target.with_name(self._complete["aside"]))
                else:
                    os.replace(new, target)
        except FileExistsError:
            raise _made_meanwhile(target) from None
        except OSError as error:
            raise OSError(
                f"'{target}' could not be written: {error.strerror}. resume=True tries it again; "
                "move away what is there if it cannot be replaced"
            ) from error

    def _note(self, complete: dict[str, Any]) -> None:
        self._write(complete)
        self._complete = complete


def _made_meanwhile(target: Path) -> FileExistsError:
    return FileExistsError(
        f"'{target}' was made while this ran. resume=True, overwrite=True replaces it"
    )
