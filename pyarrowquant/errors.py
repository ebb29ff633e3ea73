"""What can go wrong with layers, as exceptions and warnings."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")  # of a URI, whose slashes a path joins


@dataclass(frozen=True)
class LayerError:
    """What is wrong with one layer.

    Attributes
    ----------
    layer_name : str or None
        The layer's name; None where the name itself cannot be read.
    row : int
        Row of the layer, counted from 0 over the whole input; for `compare`, over the table that
        the message names.
    index : int or None
        Element within the layer, or None where no single element is at fault.
    kind : str
        One of "non_finite", "shape_mismatch", "null", "corrupt", "scale_range", "importance"; for
        `compare` also "missing", "duplicate", for dictionaries of arrays "array".
    message : str
        The whole sentence, with the layer's name and the fix.
    """

    layer_name: str | None
    row: int
    index: int | None
    kind: str
    message: str


class QuantizationError(ValueError):
    """One or more layers could not be quantized, decoded or compared.

    Attributes
    ----------
    errors : list of LayerError
        All layers that failed, in the order of their rows; for `compare`, those of `original`
        first.
    """

    def __init__(self, message: str, errors: list[LayerError]) -> None:
        super().__init__(message, errors)
        self.errors = errors

    def __str__(self) -> str:
        return str(self.args[0])


class ArgumentTypeError(TypeError, ValueError):
    """An argument has the wrong Python type; caught by those who expect either of the two."""


class LayerTypeError(QuantizationError, ArgumentTypeError):
    """Layers of a dictionary failed, some of them because they are no arrays."""


class UsageError(ValueError):
    """Arguments are out of bounds, exclude each other, or do not fit what is there."""


class MissingFolderError(UsageError, FileNotFoundError):
    """There is no folder in which a destination could be made."""

    def __init__(self, folder: Path) -> None:
        is_of_uri = any(_SCHEME.fullmatch(part) for part in folder.parts)
        way_out = "Only quantize writes to URIs; name a file here" if is_of_uri else "Make it first"
        super().__init__(f"Folder '{folder}' does not exist. {way_out}")


class SkippedLayerWarning(UserWarning):
    """A layer was left out because of ``continue_on_error=True``."""


class UnquantizedTensorWarning(UserWarning):
    """A tensor is not quantized, which `Conversion.unquantized` says, too."""


def layers_failed(errors: list[LayerError], classes: type[QuantizationError]) -> QuantizationError:
    """Make one exception that names all layers that failed, as Go has it."""
    if len(errors) == 1:
        return classes(errors[0].message, errors)
    lines = [f"{len(errors)} layers failed:", *(f"  {error.message}" for error in errors)]
    return classes("\n".join(lines), errors)


class InternalError(RuntimeError):
    """A defect of the library itself. The process goes on; please report it."""


def users_level() -> int:
    """Return the stacklevel with which the caller's warning names the user's line."""
    package = str(Path(__file__).parent)
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    return level
