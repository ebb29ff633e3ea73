"""Files of text that models read."""

from __future__ import annotations

import os

from pyarrowquant.reading.location import locate


def read_text(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file of UTF-8 text, which is checked."""
    location = locate(path, None)
    if not location.is_file():
        raise ValueError(f"{location} is a folder; give a file of text")
    with location.open() as file:
        data: bytes = file.buffer(0, file.size).to_pybytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: the text is not UTF-8: byte {error.start} is {data[error.start]:#x}. Save it "
            "as UTF-8"
        ) from None
    return data
