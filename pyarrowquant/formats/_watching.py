"""Weights that are written as they are: what of them is no number is said on the way."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import users_level

# Numbers that are looked at together, so that they stay in a cache.
_PIECE = 1 << 18
# As whole numbers with a sign and without one, and the Infs of both signs as such: no number is
# larger, but NaN.
_INFINITE = {
    "F16": ("<i2", "<u2", 0x7C00, 0xFC00),
    "BF16": ("<i2", "<u2", 0x7F80, 0xFF80),
    "F32": ("<i4", "<u4", 0x7F800000, 0xFF800000),
}
WATCHED = frozenset(_INFINITE)


class _Listener(threading.local):
    texts: list[str] | None = None


_listener = _Listener()


@contextmanager
def listening() -> Iterator[list[str]]:
    """Give the list that warnings of this thread go to, for who tells them later."""
    texts: list[str] = []
    _listener.texts = texts
    try:
        yield texts
    finally:
        _listener.texts = None


def warn_of_kept(text: str) -> None:
    """Warn of a tensor that is written as it is, unless somebody listens."""
    if _listener.texts is not None:
        _listener.texts.append(text)
    else:
        warnings.warn(text, UserWarning, stacklevel=users_level())


def watched(pieces: Iterable[Any], dtype: str, name: str, place: object) -> Iterator[Any]:
    """Give the bytes of a tensor as they are, and warn once if it has NaN or Inf.

    Parameters
    ----------
    pieces : iterable of buffers
        Which may end within a number.
    dtype : str
        One of `WATCHED`.
    name : str
    place : object
        The file that it is read from, for the warning.
    """
    kind = np.dtype(_INFINITE[dtype][1])
    looked, found, rest = 0, None, b""
    for piece in pieces:
        if found is None:
            data = memoryview(piece).cast("B") if not rest else memoryview(rest + bytes(piece))
            whole = data.nbytes - data.nbytes % kind.itemsize
            rest = bytes(data[whole:])
            numbers = np.frombuffer(data[:whole], kind)
            found = _first(numbers, dtype)
            if found is not None:
                _warn(numbers[found], dtype, looked + found, name, place)
            looked += numbers.size
        yield piece


def _first(numbers: npt.NDArray[Any], dtype: str) -> int | None:
    signed, unsigned, positive, negative = _INFINITE[dtype]
    for start in range(0, numbers.size, _PIECE):
        part = numbers[start : start + _PIECE]
        if part.view(signed).max() >= positive or part.view(unsigned).max() >= negative:
            wrong = (part & np.array(positive, unsigned)) == positive
            return start + int(wrong.argmax())
    return None


def _warn(number: Any, dtype: str, index: int, name: str, place: object) -> None:
    _, _, positive, negative = _INFINITE[dtype]
    what = "Inf" if number in (positive, negative) else "NaN"
    warn_of_kept(
        f"'{place}': {quoted(name)}, which is not quantized, has {what} at index {index}. Unless "
        "that is a mask, engines would compute NaN with it"
    )
