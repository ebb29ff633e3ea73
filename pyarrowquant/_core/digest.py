"""What tells the content of a file from any other."""

from __future__ import annotations

import hashlib
from pathlib import Path

_PIECE = 1 << 22  # bytes that are read at a time


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
