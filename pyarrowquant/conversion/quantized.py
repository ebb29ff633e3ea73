"""What a run knows of each layer that it has quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from pyarrowquant._core.settings import Settings

ERRORS = ("mse", "relative_error", "cosine", "max_abs_error")


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer that was quantized.

    Attributes
    ----------
    name : str
    settings : Settings
        Those that it got in the end, of a budget or a floor, too.
    bits : int
        That it takes in the output.
    mse, relative_error, cosine, max_abs_error : float
        Against the weights that were quantized.
    """

    name: str
    settings: Settings
    bits: int
    mse: float
    relative_error: float
    cosine: float
    max_abs_error: float

    @classmethod
    def from_list(cls, said: Sequence[Any]) -> QuantizedLayer:
        """Return what `to_list` was called of."""
        name, settings, bits, *errors = said
        if not (isinstance(name, str) and isinstance(bits, int)):
            raise TypeError(f"layer {name!r} has {bits!r} bits")
        if not all(isinstance(error, float) for error in errors):
            raise TypeError(f"layer {name!r} has the errors {errors}")
        return cls(name, Settings(*settings), bits, *errors)

    def to_list(self) -> list[Any]:
        """Return what makes the same again, for JSON, in few bytes: models have many layers."""
        errors = (self.mse, self.relative_error, self.cosine, self.max_abs_error)
        return [self.name, astuple(self.settings), self.bits, *errors]
