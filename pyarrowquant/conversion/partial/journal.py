"""What a run notes of the files of an output that are made one by one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.conversion.partial.checksums import checked
from pyarrowquant.conversion.partial.damage import DAMAGES, damaged
from pyarrowquant.conversion.partial.identity import digest_of_ends
from pyarrowquant.conversion.partial.lock import refuse_others
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.strict_json import parse_any

_JOURNAL = "files.json"


@dataclass(frozen=True)
class Stamp:
    """What tells a file, or an object of a store, from another one of its name.

    Attributes
    ----------
    bytes : int
    modified : int or None
        Nanoseconds of its time of modification; None of one with a checksum, as the same bytes may
        be written twice.
    checksum : str or None
        As the store has it; of a file that of its ends.
    """

    bytes: int
    modified: int | None
    checksum: str | None

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Stamp:
        """Return what `asdict` was called of."""
        return cls(said["bytes"], said["modified"], said["checksum"])


def stamp_of(file: Path) -> Stamp:
    """Return what tells a file of this machine, on whichever machine sees it."""
    return Stamp(file.stat().st_size, None, digest_of_ends(locate(file, None)))


@dataclass
class Journal:
    """How far the files of an output are.

    Attributes
    ----------
    names : set of str
        Those that the run puts at their places in a store, or is about to. None before it begins
        to.
    replaces : bool
        Whether something was there before. New files then lie apart until all are there.
    done : Done or None
        How many files are whole, one a batch, and what was read for them. None before the first.
    files : dict of str to Stamp
        Those that are whole.
    """

    names: set[str] = field(default_factory=set)
    replaces: bool = False
    done: Done | None = None
    files: dict[str, Stamp] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str | bytes) -> Journal:
        """Return what `to_json` was called of."""
        said: dict[str, Any] = parse_any(text)
        done = None if said["done"] is None else Done.from_dict(said["done"])
        files = {name: Stamp.from_dict(stamp) for name, stamp in said["files"].items()}
        return cls(set(said["names"]), said["replaces"], done, files)

    def to_json(self) -> str:
        return json.dumps(
            {
                "names": sorted(self.names),
                "replaces": self.replaces,
                "done": None if self.done is None else self.done.to_dict(),
                "files": {name: asdict(stamp) for name, stamp in self.files.items()},
            }
        )


def journal_file(folder: Path) -> Path:
    """Return the file that says which files of an output are whole."""
    return folder / _JOURNAL


def journal_in(folder: Path) -> Journal:
    """Read which files of an output are whole in the folder of a run; an empty one if none are."""
    file = journal_file(folder)
    refuse_others(file)
    try:
        with naming_file(file):
            return Journal.from_json(checked(file.read_bytes()))
    except FileNotFoundError:
        return Journal()
    except DAMAGES as error:
        raise damaged(file, error) from error
