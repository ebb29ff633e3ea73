"""Texts that a model is run on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pyarrowquant.reading.location import locate

BUILT_IN = "built-in"


@dataclass(frozen=True)
class Text:
    """A text, and how to recognize it.

    Attributes
    ----------
    name : str
        Of its file, or "built-in".
    content : str
    sha256 : str
        Of its bytes as UTF-8.
    """

    name: str
    content: str
    sha256: str


def texts_in(paths: Sequence[str | os.PathLike[str]]) -> list[Text]:
    """Read files of UTF-8; without any, give the text that comes with the package.

    That has prose, dialogue, tables and code, in twenty languages and eight programming languages.
    """
    if not paths:
        data = files("pyarrowquant.calibration").joinpath("text.txt").read_bytes()
        return [_text(BUILT_IN, data)]
    return [_read(path) for path in paths]


def _read(path: str | os.PathLike[str]) -> Text:
    location = locate(path, None)
    if not location.is_file():
        raise ValueError(f"'{location}' is a folder: give files of text")
    with location.open() as file:
        data = bytes(file.buffer(0, file.size))
    try:
        text = _text(Path(location.name).name, data)
    except UnicodeDecodeError as error:
        raise ValueError(f"'{location}' is no UTF-8 text: {error}") from None
    if not text.content.strip():
        raise ValueError(f"'{location}' has no text")
    return text


def _text(name: str, data: bytes) -> Text:
    return Text(name, data.decode(), hashlib.sha256(data).hexdigest())
