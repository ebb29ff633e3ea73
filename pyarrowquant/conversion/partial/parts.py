"""How far a run is, and the files that say so."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant._core.new_file import new_file
from pyarrowquant._core.results import batches_of
from pyarrowquant._core.source import RESULT_COLUMNS, Source
from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.conversion.partial.checksums import CHECKSUM_BYTES, check, checked, checksum
from pyarrowquant.conversion.partial.damage import DAMAGES, damaged
from pyarrowquant.conversion.partial.growing import NOTHING, Written
from pyarrowquant.conversion.partial.lock import refuse_others
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.strict_json import parse_any
from pyarrowquant.reading.table_files import errors_of

_DONE = "done.json"
_PIECE = 1 << 23


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
    written : Written
        Where it is said what workers of a cluster have written to its places in the output.
    described : Written
        Where it is said what became of layers, if they are not in the totals.
    """

    batches: int
    read: int
    totals: Totals
    written: Written = NOTHING
    described: Written = NOTHING

    @classmethod
    def from_note(cls, text: str | bytes) -> Done:
        """Return what `to_note` was called of."""
        return cls.from_dict(parse_any(text))

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Done:
        """Return what `to_dict` was called of."""
        grown = {name: Written(**said[name]) for name in ("written", "described")}
        numbers = {name: said[name] for name in ("batches", "read")}
        numbers |= {name: each.size for name, each in grown.items()}
        for name, number in numbers.items():
            if not isinstance(number, int) or number < 0:
                raise ValueError(f"{name} is {number!r}")
        totals = Totals.from_dict(said["totals"])
        return cls(said["batches"], said["read"], totals, **grown)

    def to_note(self) -> str:
        """Return the same as JSON, without the layers: it is written again with each batch."""
        return json.dumps(self._said(self.totals.sums()))

    def to_dict(self) -> dict[str, Any]:
        """Return what makes the same again, for JSON."""
        return self._said(self.totals.to_dict())

    def _said(self, totals: dict[str, Any]) -> dict[str, Any]:
        grown = {"written": asdict(self.written), "described": asdict(self.described)}
        return {"batches": self.batches, "read": self.read, "totals": totals, **grown}


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


def write_part(file: Path, results: pa.RecordBatch, done: Done) -> None:
    """Write a part, with its checksum behind it."""
    with new_file(file) as sink, pa.ipc.new_file(sink, results.schema) as writer:
        writer.write_batch(results, custom_metadata={"part": done.to_note()})
    with file.open("r+b") as written:
        found = checksum(iter(lambda: written.read(_PIECE), b""))
        written.write(found)


def read_part(file: Path) -> Part:
    """Read a part, and make sure that nothing which uses it meets what no run has written."""
    location = locate(file, None)
    try:
        with location.open() as opened, errors_of(location):
            size = opened.size - CHECKSUM_BYTES
            if size < 0:
                raise ValueError("it is cut off")
            pieces = (opened.buffer(at, min(_PIECE, size - at)) for at in range(0, size, _PIECE))
            check(opened.buffer(size, CHECKSUM_BYTES).to_pybytes(), pieces)
            reader = pa.ipc.open_file(pa.BufferReader(opened.buffer(0, size)))
            results, said = reader.get_batch_with_custom_metadata(0)
            results.validate(full=True)
        for _ in batches_of(Source(pa.Table.from_batches([results]), RESULT_COLUMNS)):
            pass
        return Part(results, Done.from_note(said[b"part"]))
    except DAMAGES as error:
        raise damaged(file, error) from error


def results_of(folder: Path) -> pa.Table:
    """Read the results of all parts, in the order of the source."""
    files = parts_in(folder)
    batches = [read_part(file).results for file in files]
    for file, batch in zip(files, batches, strict=True):
        if not batch.schema.equals(batches[0].schema):
            raise damaged(file, ValueError(f"it has other columns than '{files[0].name}'"))
    return pa.Table.from_batches(batches)


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
        with naming_file(file):
            return Done.from_note(checked(file.read_bytes()))
    except FileNotFoundError:
        return None
    except DAMAGES as error:
        raise damaged(file, error) from error
