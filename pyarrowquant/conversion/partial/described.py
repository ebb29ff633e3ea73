"""What became of the layers whose results have their places in an output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pyarrowquant.conversion.partial.damage import DAMAGES
from pyarrowquant.conversion.partial.growing import GrowingFile, Written
from pyarrowquant.conversion.quantized import QuantizedLayer
from pyarrowquant.reading.strict_json import parse_any

_NAME = "layers.jsonl"


class DescribedLayers:
    """What became of layers, in the order in which they were quantized.

    Parameters
    ----------
    folder : Path
        Of the run.
    noted : Written
        What counts of their file, in which each has a line.
    """

    def __init__(self, folder: Path, noted: Written) -> None:
        self._file = GrowingFile(folder / _NAME, noted)
        self._count = 0

    def read(self) -> list[QuantizedLayer]:
        """Read all of them, and make sure that they are as they were noted."""
        lines = self._file.lines()
        self._count = len(lines)
        try:
            return [QuantizedLayer.from_list(parse_any(line)) for line in lines]
        except DAMAGES as error:
            raise self._file.damaged_by(error) from error

    def note(self, layers: Sequence[QuantizedLayer]) -> Written:
        """Put those onto the disk that are not there; return what a note is to say of the file."""
        new = layers[self._count :]
        self._count = len(layers)
        return self._file.add([json.dumps(layer.to_list()) for layer in new])
