"""What a format of one file is to a conversion that has a budget of bytes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from pyarrowquant.formats._format import Format
from pyarrowquant.formats._origin import Origin
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.planned import PlannedLayer


class KeptTensor(Protocol):
    """A tensor that is not quantized, in the output."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def kept_bytes(self) -> int: ...


class SizedFormat(Format):
    """A format of one file, whose size is known before it is written."""

    @abstractmethod
    def alignment(self, model: Model) -> int:
        """Return the number of bytes of which layers take a multiple."""

    @abstractmethod
    def bytes_beside(
        self,
        model: Model,
        layers: Sequence[PlannedLayer],
        kept: Sequence[KeptTensor],
        origin: Origin,
    ) -> int:
        """Return what the file has beside the data of layers."""
