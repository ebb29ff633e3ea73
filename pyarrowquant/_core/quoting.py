"""Values in messages: in one line, and not too long."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_LONGEST_TEXT = 100
_LONGEST_DECIMAL = 4096  # bits of an integer


def quoted(value: object) -> str:
    """Show a value of a file in one line that is not too long, whatever its size."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > _LONGEST_TEXT:
            return shortened(text)
    return text


def in_line(name: str) -> str:
    """Show a name of a file as `quoted` does, without quotes unless nothing is left."""
    start = name[: _LONGEST_TEXT + 1]
    return shortened("".join(map(_printable, start))) or repr(name)


def printable(text: str) -> str:
    """Escape what a terminal would act on: names come from files of others."""
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."


def enumerated(values: Iterable[str], word: str = "and") -> str:
    """Return "a", "a and b" or "a, b and c"."""
    *before, last = values
    return f"{', '.join(before)} {word} {last}" if before else last


def first_few(texts: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """Return "a, b, c and 2 more"."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def first_names(names: Sequence[str], most: int = 3) -> str:
    """Return the first of many names of files, in one line that is not too long."""
    return first_few([in_line(name) for name in names[:most]] + list(names[most:]), most)


def _pieces(value: Any) -> Iterator[str]:
    """Give what repr does, but not all at once: it may be huge, or nested too deeply."""
    kind = type(value)
    if kind in (list, tuple):
        yield "[" if kind is list else "("
        for i, item in enumerate(value):
            yield ", " if i else ""
            yield from _pieces(item)
        yield "]" if kind is list else ",)" if len(value) == 1 else ")"
    elif kind is dict:
        yield "{"
        for i, (key, item) in enumerate(value.items()):
            yield ", " if i else ""
            yield from _pieces(key)
            yield ": "
            yield from _pieces(item)
        yield "}"
    elif kind in (str, bytes):
        yield repr(value[: _LONGEST_TEXT + 1])
    elif kind is int and value.bit_length() > _LONGEST_DECIMAL:
        yield hex(value)  # Python refuses so many decimal digits
    else:
        yield printable(repr(value)[: _LONGEST_TEXT + 1])


def meant(said: object, known: Iterable[object]) -> str:
    """Return " Did you mean 'x'?" where a known name is near to what was said; else nothing."""
    near = difflib.get_close_matches(str(said)[:100], [str(each) for each in known], 1)
    return f" Did you mean {near[0]!r}?" if near else ""
