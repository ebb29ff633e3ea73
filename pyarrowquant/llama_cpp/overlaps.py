"""Added tokens of which one ends as another begins, so that texts may have either."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from pyarrowquant.llama_cpp.tokenizer_files import AddedToken

_MOST_PAIRS = 20_000
_Part = tuple[str, bool]  # whether it is a token


def told_apart_otherwise(added: Sequence[AddedToken]) -> dict[str, tuple[str, str]]:
    """Return texts in which llama.cpp finds other tokens, with the two that overlap there.

    tokenizers takes the token that begins first, and of several the longest; llama.cpp takes the
    longest of all texts first. So one that another begins with is found by both alike.
    """
    texts = dict.fromkeys(token.content for token in added if token.content)
    pairs = list(islice(_overlapping(texts), _MOST_PAIRS))
    involved = {text for first, second, _ in pairs for text in (first, second)}
    normalized = {token.content for token in added if token.normalized}
    rounds = [involved - normalized, involved & normalized]
    longest_first = sorted(
        (text for text in texts if text in involved), key=lambda text: -len(text.encode())
    )
    found: dict[str, tuple[str, str]] = {}
    for first, second, shared in pairs:
        text = first + second[shared:]
        leftmost: list[_Part] = [(text, False)]
        for tokens in rounds:
            leftmost = _apart(leftmost, partial(_leftmost, tokens))
        longest: list[_Part] = [(text, False)]
        for token in longest_first:
            longest = _apart(longest, partial(_split, token))
        if leftmost != longest:
            found[text] = first, second
    return found


def _overlapping(texts: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """Give pairs of which the first ends with so many letters as the second begins with."""
    beginning: dict[str, list[str]] = {}
    for text in texts:
        for end in range(1, len(text)):
            beginning.setdefault(text[:end], []).append(text)
    for first in texts:
        for size in range(1, len(first)):
            for second in beginning.get(first[-size:], ()):
                if second != first:
                    yield first, second, size


def _apart(parts: Iterable[_Part], cut: Callable[[str], list[_Part]]) -> list[_Part]:
    """Cut what is no token yet."""
    return [one for text, is_token in parts for one in ([(text, True)] if is_token else cut(text))]


def _leftmost(tokens: set[str], text: str) -> list[_Part]:
    """Find the first token, the longest of those that begin there, and so on."""
    parts: list[_Part] = []
    start = place = 0
    while place < len(text):
        here = [token for token in tokens if text.startswith(token, place)]
        if not here:
            place += 1
            continue
        token = max(here, key=len)
        if place > start:
            parts.append((text[start:place], False))
        parts.append((token, True))
        start = place = place + len(token)
    return parts + ([(text[start:], False)] if start < len(text) else [])


def _split(token: str, text: str) -> list[_Part]:
    """Find all of one token."""
    parts: list[_Part] = []
    for number, rest in enumerate(text.split(token)):
        if number:
            parts.append((token, True))
        if rest:
            parts.append((rest, False))
    return parts
