"""Sums of an interrupted run, which another one goes on from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from pyarrowquant._core.placing import sync
from pyarrowquant.calibration.squares import Squares

WINDOWS_TOGETHER = 16  # after which sums are kept
_RUN, _SUMS, _COUNTS = "run", "sums.", "counts."


class Partial:
    """A hidden file beside the destination, which is replaced when some windows are done.

    Parameters
    ----------
    destination : Path
    run : mapping
        What decides about the sums, as JSON has it.
    resume : bool
        Whether to go on from what there is.
    """

    def __init__(self, destination: Path, run: Mapping[str, Any], resume: bool) -> None:
        self._path = destination.with_name(f".{destination.name}.partial")
        self._destination = destination
        self._run = json.loads(json.dumps(run))
        self._resume = resume

    def read(self) -> tuple[int, dict[str, Squares]]:
        """Return how many windows are done, and their sums.

        Raises
        ------
        ValueError
            The file is damaged, or of another run.
        """
        if not self._resume or not self._path.exists():
            return 0, {}
        try:
            with np.load(self._path) as file:
                said = json.loads(str(file[_RUN]))
                arrays = {name: file[name] for name in file.files}
        except (BadZipFile, EOFError, KeyError, OSError, ValueError) as error:
            raise ValueError(
                f"'{self._path}' of an earlier run is damaged ({error}). Without resume=True, a "
                "new run begins"
            ) from error
        windows = said.pop("windows_done")
        others = [name for name in self._run if said.get(name) != self._run[name]]
        if others:
            raise ValueError(
                f"'{self._destination.name}' cannot be continued: the {' and '.join(others)} of "
                "that run differ. Without resume=True, a new run begins"
            )
        names = [name.removeprefix(_SUMS) for name in arrays if name.startswith(_SUMS)]
        return windows, {
            name: Squares(arrays[_SUMS + name], arrays[_COUNTS + name]) for name in names
        }

    def write(self, windows: int, found: Mapping[str, Squares]) -> None:
        """Keep the sums of so many windows."""
        arrays: dict[str, Any] = {
            key: array
            for name, squares in found.items()
            for key, array in ((_SUMS + name, squares.sums), (_COUNTS + name, squares.counts))
        }
        run = np.array(json.dumps({**self._run, "windows_done": windows}))
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("wb") as file:
            np.savez(file, **{_RUN: run, **arrays})
        sync(new)
        os.replace(new, self._path)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
