"""What a run notes in a store of the files that it puts there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.stores.store import Stamp
from pyarrowquant.reading.strict_json import parse_any


@dataclass
class Journal:
    """How far the files of an output are in a store.

    Attributes
    ----------
    names : set of str
        Those that the run puts at their places, or is about to. None before it begins to.
    replaces : bool
        Whether something was there before. New files then lie apart until all are there.
    done : Done or None
        How many files are whole, one a batch, and what was read for them. None before the first.
    files : dict of str to Stamp
        Those that are whole in the store.
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
