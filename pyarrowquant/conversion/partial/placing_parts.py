"""The files of a split output get their names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pyarrowquant._core.placing import contents, place, sync, take_over_mode
from pyarrowquant.conversion.partial.noted import last_name


def place_parts(destination: Path, output: Path, complete: dict[str, Any]) -> None:
    """Give the parts that are whole their names, the first one last, which says the others.

    Until then nothing has the name of the first one, so that no reader takes new parts and old
    ones for a model. What a run that was killed has left to do, the next one does.

    Parameters
    ----------
    destination : Path
    output : Path
        The folder that parts are in which have no name yet.
    complete : dict
        What was noted: "replaces" are the names of parts that are not new, "obsolete" those of
        files that go in the end.

    Raises
    ------
    FileNotFoundError
        A part is neither here nor there any more.
    FileExistsError
        A name was free, and is not any more.
    """
    expected: dict[str, Any] = complete["output"]
    last = last_name(destination, complete)
    left = [name for name in expected if contents(destination.with_name(name)) != expected[name]]
    for name in left:
        if contents(output / name) != expected[name]:
            raise FileNotFoundError(
                f"'{destination.with_name(name)}' was complete, and is not there any more or has "
                "changed since. Without resume=True, a new run begins"
            )
        target = destination.with_name(name)
        if name in complete["replaces"] and target.exists():
            take_over_mode(output / name, target)
    if last in left and last in complete["replaces"]:
        destination.with_name(last).unlink(missing_ok=True)
    for name in sorted(left, key=lambda name: (name == last, name)):
        if name in complete["replaces"] and name != last:
            os.replace(output / name, destination.with_name(name))
        else:
            place(output / name, destination.with_name(name))
    sync(destination.absolute().parent)
    for name in complete["obsolete"]:
        destination.with_name(name).unlink(missing_ok=True)
