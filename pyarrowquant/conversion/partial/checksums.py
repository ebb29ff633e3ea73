"""What a run notes has a checksum: a disk may give back other bytes than it got."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

CHECKSUM_BYTES = 8


def checksum(pieces: Iterable[Any]) -> bytes:
    """Return one of CHECKSUM_BYTES of all bytes of some buffers."""
    found = 0
    for piece in pieces:
        found = zlib.crc32(piece, found)
    return b"%08x" % found


def with_checksum(text: str) -> bytes:
    """Return a text with its checksum in a line before it."""
    data = text.encode()
    return checksum([data]) + b"\n" + data


def checked(data: bytes) -> bytes:
    """Return the text of which `with_checksum` made this.

    Raises
    ------
    ValueError
        It has changed since.
    """
    found, text = data[:CHECKSUM_BYTES], data[CHECKSUM_BYTES + 1 :]
    check(found, [text])
    return text


def check(found: bytes, pieces: Iterable[Any]) -> None:
    """Raise where a checksum is not that of the bytes."""
    if found != checksum(pieces):
        raise ValueError("its checksum is another one")
