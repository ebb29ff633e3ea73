"""What systems make of names: one file has several, and some names are of no file."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from pathlib import Path

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import UsageError

# Windows takes these for devices, in any folder and with any suffix, and those characters in none.
_DEVICES = re.compile(r"(con|prn|aux|nul|con(in|out)\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.I | re.S)
_LONGEST = 200  # hidden names are longer, and 255 is the most
_IN_NO_NAME = re.compile(r'[\x00-\x1f<>:"|?*]|[. ]\Z')


def is_same(one: Path, other: Path) -> bool:
    """Whether two names, as links lead, are of one file, or of one folder.

    Many file systems of macOS and Windows take a name in capitals, or with its accents as
    characters of their own, for the same. Links of other names to the same file are not: to
    replace one leaves the other.
    """
    if one == other:
        return True
    if _plain(one.name) != _plain(other.name):
        return False
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        return False


def lies_in(path: Path, place: Path) -> bool:
    """Whether a name, as links lead, is that of a file or folder, or of what lies in that."""
    return any(is_same(each, place) for each in (path, *path.parents))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def refuse_impossible(path: str | os.PathLike[str]) -> None:
    """Raise where a file or folder cannot have this name on this system, or those beside it."""
    name = Path(path).name
    if sys.platform == "win32" and (_DEVICES.fullmatch(name) or _IN_NO_NAME.search(name)):
        raise UsageError(
            f"{quoted(name)} is no name of a file on Windows: it is that of a device, or has a "
            'character of <>:"|?*, or a dot or space at its end. Give another name'
        )
    length = len(os.fsencode(name))
    if length > _LONGEST:
        raise UsageError(
            f"{quoted(name)} is too long a name: {length} bytes, the most allowed is {_LONGEST}. "
            "Give a shorter one"
        )
