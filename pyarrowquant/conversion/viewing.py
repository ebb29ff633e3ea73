"""How a conversion sees its source, on this machine and on others."""

from __future__ import annotations

from dataclasses import dataclass

from pyarrowquant.conversion.rescaling import rescaled
from pyarrowquant.conversion.source import convertible
from pyarrowquant.formats._format import Format
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_source
from pyarrowquant.rescaling.view import RescaledModel


@dataclass(frozen=True)
class Viewed:
    """A source, opened and with the names and rows of a format.

    Attributes
    ----------
    model : Model
    rescaled : RescaledModel or None
        What factors were moved in, under the names of the source.
    """

    model: Model
    rescaled: RescaledModel | None


@dataclass(frozen=True)
class View:
    """Where a source is, and what decides how a format has its tensors. It can be pickled.

    Attributes
    ----------
    source : str
        A path or a URI.
    target : Format
    rescale : str
    pre_tokenizer : str or None
    """

    source: str
    target: Format
    rescale: str
    pre_tokenizer: str | None

    def open(self) -> Model:
        """Open the source as it is."""
        return open_source(self.source)

    def of(self, model: Model) -> Viewed:
        """Return the source, which is open, as the format has it."""
        moved = rescaled(convertible(model), self.target, self.rescale)
        viewed = self.target.viewed(moved, self.pre_tokenizer)
        return Viewed(viewed, moved if isinstance(moved, RescaledModel) else None)
