"""Sums of an interrupted run, which another one goes on from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyarrowquant._core.digest import digest_of
from pyarrowquant._core.placing import sync
from pyarrowquant._core.quoting import quoted
from pyarrowquant.calibration.squares import Squares
from pyarrowquant.conversion.partial.damage import damaged
from pyarrowquant.conversion.partial.lock import refuse_others
from pyarrowquant.reading.strict_json import parse_any

WINDOWS_TOGETHER = 16  # after which sums are kept
_DIFFERS = {
    "source": "the model has changed",
    "config": "its config.json has changed",
    "tokens": "the texts, the tokens or the context have changed",
}
_RUN, _SUMS, _COUNTS, _OUTPUT = "run", "sums.", "counts.", "output"


class Partial:
    """A hidden file beside the destination, which is replaced when some windows are done.

    Parameters
    ----------
    destination : Path
    run : mapping
        What decides about the sums, as JSON has it.
    resume : bool
        Whether to go on from what there is.
    scratch : Path
        A folder of this run alone, where it is written; it goes with a run that is killed.

    Raises
    ------
    FileExistsError
        What has the name of the file is none.
    """

    def __init__(
        self, destination: Path, run: Mapping[str, Any], resume: bool, scratch: Path
    ) -> None:
        self._path = _place_of(destination)
        self._destination = destination
        self._run = json.loads(json.dumps(run))
        self._resume = resume
        self._scratch = scratch
        refuse_others(self._path)

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
            with self._path.open("rb") as opened, np.load(opened) as file:
                said = parse_any(str(file[_RUN]))
                windows = said.pop("windows_done")
                arrays = {name: file[name] for name in file.files}
            names = [name.removeprefix(_SUMS) for name in arrays if name.startswith(_SUMS)]
            found = {name: _squares(arrays[_SUMS + name], arrays[_COUNTS + name]) for name in names}
            if type(windows) is not int or windows < 0:
                raise ValueError(f"windows_done is {quoted(windows)}")
        except Exception as error:  # files of zip and of arrays raise whatever comes
            raise damaged(self._path, error) from error
        others = [_DIFFERS[name] for name in self._run if said.get(name) != self._run[name]]
        if others:
            raise ValueError(
                f"'{self._destination.name}' cannot be continued: since that run "
                f"{' and '.join(others)}. Without resume=True, a new run begins"
            )
        return windows, found

    def write(self, windows: int, found: Mapping[str, Squares], output: Path | None = None) -> None:
        """Keep the sums of so many windows, and which output they became, if that is there."""
        arrays: dict[str, Any] = {
            key: array
            for name, squares in found.items()
            for key, array in ((_SUMS + name, squares.sums), (_COUNTS + name, squares.counts))
        }
        run = np.array(json.dumps({**self._run, "windows_done": windows}))
        if output is not None:
            arrays[_OUTPUT] = np.array(digest_of(output))
        new = self._scratch / "sums"
        with new.open("wb") as file:
            np.savez(file, **{_RUN: run, **arrays})
        sync(new)
        os.replace(new, self._path)
        sync(self._path.parent)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def remove_finished(destination: Path) -> None:
    """Remove what a run has left that was killed when its output had got its place."""
    path = _place_of(destination)
    if not path.is_file() or not destination.is_file():
        return
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            output = str(file[_OUTPUT])
    except Exception:  # it is of a run that has no output, or damaged, which `read` tells
        return
    if output == digest_of(destination):
        path.unlink()


def _place_of(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.partial")


def _squares(sums: Any, counts: Any) -> Squares:
    is_matrix = sums.dtype == np.float64 and sums.ndim == 2
    if not is_matrix or counts.dtype != np.int64 or counts.shape != sums.shape[:1]:
        raise ValueError(
            f"sums of {sums.dtype} and shape {sums.shape}, counts of {counts.dtype} and shape "
            f"{counts.shape}"
        )
    return Squares(sums, counts)
