"""Whether the numbers that codes are decoded with can be what they are said to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant.reading.stored import Stored, numbers

# Bytes of a model's scales that are read before any work; more are read with their layers.
READ_FIRST = 1 << 28
_READ_ALONG = 1 << 17  # bytes that a system reads around few of them, or more
_PIECE = 1 << 20  # numbers that are looked at, at a time
_SIGNED = frozenset({"bias", "levels", "nested_levels"})
_FINITE = _SIGNED | {"scale", "factor", "divisor"}
_OF_FLATS = frozenset({"scales", "nested_scales"})  # of which the first may be codes
_NO_SIGN = frozenset({"scale", "factor"})
# Which have small enough numbers for any weights; the scales of groups become 0 in others.
_WIDE = frozenset({"F32", "BF16"})


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


def check_scales(parts: Mapping[str, Stored], signed: bool) -> list[str]:
    """Raise ScaleError where a scale is NaN or Inf, or has a sign that no scale has.

    Parameters
    ----------
    parts : mapping of str to Stored
        The tensors that a layer is decoded with, by what they are.
    signed : bool
        Whether scales may be negative, as some programs write them for whole numbers.

    Returns
    -------
    list of str
        What those are that have a 0.
    """
    with_zeros = []
    for key, part in _checked(parts).items():
        has_zero = False
        with part.open() as array:
            flat = array.reshape(-1)
            for begin in range(0, flat.size, _PIECE):
                piece = numbers(flat[begin : begin + _PIECE], part.tensor.dtype)
                wrong = ~np.isfinite(piece)
                has_zero = has_zero or not piece.all()
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
        if has_zero and key in _NO_SIGN:
            with_zeros.append(key)
    return with_zeros


def check_zeros(
    parts: Mapping[str, Stored], key: str, decode: Callable[[Mapping[str, Stored]], Floats]
) -> None:
    """Raise ScaleError where a scale of 0 is that of codes that are not 0.

    Parameters
    ----------
    parts : mapping of str to Stored
        The tensors that a layer is decoded with, by what they are.
    key : str
        What has a scale of 0.
    decode : callable
    """
    scale, codes = parts[key].tensor, parts["codes"].tensor
    zeros = _Zeros(**vars(parts[key]))
    if scale.dtype not in _WIDE and not zeros.read().all():
        return
    weights = decode({**parts, key: zeros}).reshape(-1)
    wrong = (weights != 0) & ~np.isnan(weights)
    if wrong.any():
        raise ScaleError(
            parts[key],
            f"{quoted(scale.name)} has a scale of 0 for codes that are not 0, such as that of "
            f"{quoted(codes.name)} at index {int(wrong.argmax())}",
        )


class _Zeros(Stored):
    """1 for each scale of 0, and 0 for others: what is decoded with it has a scale of 0."""

    def read(self) -> Any:
        return (super().read() == 0).astype(np.float32)


def _checked(parts: Mapping[str, Stored]) -> dict[str, Stored]:
    return {
        key: part
        for key, part in parts.items()
        if key in _FINITE or (key in _OF_FLATS and part.tensor.dtype == "F32")
    }


def _shown(number: np.float32) -> str:
    return f"{number:g}".replace("nan", "NaN").replace("inf", "Inf")
