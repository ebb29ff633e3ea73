"""Results of some batches of a source, each in its file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pyarrowquant._core.underflow import Underflow
from pyarrowquant.errors import LayerError
from pyarrowquant.reading.location import locate


class WorkError(ValueError):
    """What an interrupted run has left cannot be continued."""


@dataclass(frozen=True)
class Part:
    """Results of some batches of the source.

    Attributes
    ----------
    results : pyarrow.RecordBatch
        Mapped from its file.
    batches : int
        How many batches of the source are done with it, from the first one on.
    read : int
        How many bytes of weights these are.
    skipped : list of LayerError
        Those of layers left out since the part before.
    missed : list of str
        What was said since then of layers that miss the quality floor.
    underflows : list of Underflow
        Layers of `results` that have groups without a scale.
    """

    results: pa.RecordBatch
    batches: int
    read: int
    skipped: list[LayerError]
    missed: list[str]
    underflows: list[Underflow]


def parts_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.arrow"))


def read_part(file: Path) -> Part:
    """Read a part."""
    try:
        with locate(file, None).open() as opened:
            reader = pa.ipc.open_file(opened.stream())
            results, said = reader.get_batch_with_custom_metadata(0)
        noted = json.loads(said[b"part"])
        noted["skipped"] = [LayerError(**error) for error in noted["skipped"]]
        noted["underflows"] = [Underflow(**each) for each in noted["underflows"]]
        return Part(results, **noted)
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> WorkError:
    return WorkError(
        f"'{file}' of an earlier run is damaged ({error}). Without resume=True, a new run begins"
    )
