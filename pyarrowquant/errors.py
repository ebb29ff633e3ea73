"""What can go wrong with layers, as exceptions and warnings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerError:
    """What is wrong with one layer.

    Attributes
    ----------
    layer_name : str or None
        The layer's name; None where the name itself cannot be read.
    row : int
        Row of the layer, counted from 0 over the whole input.
    index : int or None
        Element within the layer, or None where no single element is at fault.
    kind : str
        One of "non_finite", "shape_mismatch", "null", "corrupt", "scale_range",
        "importance", "internal".
    message : str
        The whole sentence, with the layer's name and the fix.
    """

    layer_name: str | None
    row: int
    index: int | None
    kind: str
    message: str


class QuantizationError(ValueError):
    """One or more layers could not be quantized or decoded.

    Attributes
    ----------
    errors : list of LayerError
        All layers that failed, in the order of their rows.
    """

    def __init__(self, message: str, errors: list[LayerError]) -> None:
        super().__init__(message, errors)
        self.errors = errors

    def __str__(self) -> str:
        return str(self.args[0])


class SkippedLayerWarning(UserWarning):
    """A layer was left out because of ``continue_on_error=True``."""


class InternalError(RuntimeError):
    """A defect of the library itself. The process goes on; please report it."""
