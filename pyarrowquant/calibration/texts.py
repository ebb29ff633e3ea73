"""Texts that a model is run on."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from pyarrowquant._core.arguments import several
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.text import read_text

BUILT_IN = "built-in"
_SPACE = re.compile(r"\s")


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


def parts_of(texts: Sequence[str], most: int, count: int) -> list[str]:
    """Return texts that have so many characters together, of longer ones parts from everywhere.

    Parameters
    ----------
    texts : sequence of str
    most : int
        Characters of all.
    count : int
        About how many parts there are, each of which begins between words.
    """
    total = sum(map(len, texts))
    if total <= most:
        return list(texts)
    return [_parts(text, most * len(text) // total, count * len(text) // total) for text in texts]


def _parts(text: str, most: int, count: int) -> str:
    count = max(1, count)
    size = most // count
    found = []
    for number in range(count):
        begin = number * len(text) // count
        space = _SPACE.search(text, begin, begin + size) if number else None
        begin = begin if space is None else space.start()
        found.append(text[begin : begin + size])
    return "".join(found)


def before_text(with_special: Sequence[int], plain: Sequence[int]) -> list[int]:
    """Return the tokens before a text, given all of it, and those of the text alone."""
    return list(with_special[: with_special.index(plain[0])]) if plain else []
