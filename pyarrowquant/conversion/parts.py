"""How far a run is, and the files that say so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant.conversion.lock import refuse_others
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.reading.location import locate

_DONE = "done.json"


class WorkError(ValueError):
    """What an interrupted run has left cannot be continued."""


@dataclass(frozen=True)
class Done:
    """How far a run is.

    Attributes
    ----------
    batches : int
        How many batches of the source are done, from the first one on.
    read : int
        How many bytes of weights these are.
    totals : Totals
        Of these.
    """

    batches: int
    read: int
    totals: Totals

    @classmethod
    def from_json(cls, text: str | bytes) -> Done:
        """Return what `to_json` was called of."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Done:
        """Return what `to_dict` was called of."""
        for name in ("batches", "read"):
            if not isinstance(said[name], int) or said[name] < 0:
                raise ValueError(f"{name} is {said[name]!r}")
        return cls(said["batches"], said["read"], Totals.from_dict(said["totals"]))

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return what makes the same again, for JSON."""
        return {**vars(self), "totals": self.totals.to_dict()}


@dataclass(frozen=True)
class Part:
    """Results of some batches of the source, mapped from their file, and how far that was."""

    results: pa.RecordBatch
    done: Done


def part_file(number: int) -> str:
    """Return the name of a part, of which the first one has the number 1."""
    return f"{number:08d}.arrow"


def parts_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.arrow"))


def read_part(file: Path) -> Part:
    """Read a part."""
    try:
        with locate(file, None).open() as opened:
            reader = pa.ipc.open_file(opened.stream())
            results, said = reader.get_batch_with_custom_metadata(0)
        return Part(results, Done.from_json(said[b"part"]))
    except (pa.ArrowException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(file, error) from error


def done_file(folder: Path) -> Path:
    """Return the file that says how far a run is whose results have their places in the output."""
    return folder / _DONE


def last_part(folder: Path) -> Done | None:
    """Return how far the parts of a folder are, if there are any."""
    parts = parts_in(folder)
    return read_part(parts[-1]).done if parts else None


def last_placed(folder: Path) -> Done | None:
    """Return how far a run is whose results have their places, if it has done anything."""
    file = done_file(folder)
    refuse_others(file)
    try:
        return Done.from_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(file, error) from error


def damaged(file: Path | str, error: Exception) -> WorkError:
    return WorkError(
        f"'{file}' of an earlier run is damaged ({error}). Without resume=True, a new run begins"
    )
