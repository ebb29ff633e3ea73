"""Whether the numbers that codes are decoded with can be what they are said to be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.stored import Stored, numbers

# Bytes of a model's scales that are read before any work; more are read with their layers.
READ_FIRST = 1 << 28
_READ_ALONG = 1 << 17  # bytes that a system reads around few of them, or more
_PIECE = 1 << 20  # numbers that are looked at, at a time
_SIGNED = frozenset({"bias", "levels", "nested_levels"})
_FINITE = _SIGNED | {"scale", "factor", "divisor"}
_OF_FLATS = frozenset({"scales", "nested_scales"})  # of which the first may be codes
_NO_SIGN = frozenset({"scale", "factor"})


class ScaleError(ValueError):
    """A number is none that codes are decoded with.

    Attributes
    ----------
    stored : Stored
        The tensor that has it.
    """

    def __init__(self, stored: Stored, problem: str) -> None:
        super().__init__(problem)
        self.stored = stored


def scale_bytes(parts: Mapping[str, Stored]) -> int:
    """Return the bytes that `check_scales` has the system read."""
    sizes = (part.tensor.end - part.tensor.begin for part in _checked(parts).values())
    return sum(max(size, _READ_ALONG) for size in sizes)


def check_scales(parts: Mapping[str, Stored], signed: bool) -> None:
    """Raise ScaleError where a scale is NaN or Inf, or has a sign that no scale has.

    Parameters
    ----------
    parts : mapping of str to Stored
        The tensors that a layer is decoded with, by what they are.
    signed : bool
        Whether scales may be negative, as some programs write them for whole numbers.
    """
    for key, part in _checked(parts).items():
        with part.open() as array:
            flat = array.reshape(-1)
            for begin in range(0, flat.size, _PIECE):
                piece = numbers(flat[begin : begin + _PIECE], part.tensor.dtype)
                wrong = ~np.isfinite(piece)
                if key == "divisor":
                    wrong |= piece <= 0
                elif key in _NO_SIGN and not signed:
                    wrong |= piece < 0
                if wrong.any():
                    index = int(wrong.argmax())
                    raise ScaleError(
                        part,
                        f"{quoted(part.tensor.name)} has {_shown(piece[index])} at index "
                        f"{begin + index}, which is no {'number' if key in _SIGNED else 'scale'}",
                    )


def _checked(parts: Mapping[str, Stored]) -> dict[str, Stored]:
    return {
        key: part
        for key, part in parts.items()
        if key in _FINITE or (key in _OF_FLATS and part.tensor.dtype == "F32")
    }


def _shown(number: np.float32) -> str:
    return f"{number:g}".replace("nan", "NaN").replace("inf", "Inf")
