"""Texts that a model is run on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from pyarrowquant._core.arguments import several
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.text import read_text

BUILT_IN = "built-in"


@dataclass(frozen=True)
class Text:
    """A text, and how to recognize it.

    Attributes
    ----------
    name : str
        Of its file, or "built-in".
    content : str
        Without a mark of the order of bytes.
    sha256 : str
        Of the bytes of its file.
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
    return [_read(path) for path in several("texts must be a sequence of paths", paths)]


def _read(path: str | os.PathLike[str]) -> Text:
    text = _text(locate(path, None).name, read_text(path))
    if not text.content.strip():
        raise ValueError(f"'{os.fspath(path)}' has no text")
    return text


def _text(name: str, data: bytes) -> Text:
    return Text(name, data.decode("utf-8-sig"), hashlib.sha256(data).hexdigest())


def before_text(with_special: Sequence[int], plain: Sequence[int]) -> list[int]:
    """Return the tokens before a text, given all of it, and those of the text alone."""
    return list(with_special[: with_special.index(plain[0])]) if plain else []
