"""A text as tokens, cut alike for both models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from pyarrowquant._core.quoting import quoted
from pyarrowquant.calibration.texts import before_text
from pyarrowquant.evaluation.counting import (
    Cut,
    check_length,
    differing_vocabularies,
)
from pyarrowquant.evaluation.request import Request
from pyarrowquant.reading.positions import usual_context

_BLANK_LINES = re.compile(r"\n\s*\n")


class Tokenizer(Protocol):
    """The tokenizer of a model."""

    def vocabulary(self) -> Mapping[str, int]: ...

    def encoded(self, text: str, special: bool) -> list[int]:
        """Return the tokens of a text, with special ones around it or without."""
        ...


def check_same(tokenizers: Sequence[Tokenizer], paths: Sequence[str]) -> None:
    ours, theirs = tokenizers[0].vocabulary(), tokenizers[-1].vocabulary()
    if ours != theirs:
        raise differing_vocabularies(paths[0], paths[-1], _difference(ours, theirs))


def windows_of(request: Request, tokenizer: Tokenizer, longest: int) -> Cut:
    """Cut the text into windows of the same length."""
    context = usual_context(request.context, longest, request.paths[-1])
    before, _ = _around(tokenizer)
    tokens = before + tokenizer.encoded(request.text.decode(), special=False)
    check_length(len(tokens), context, request.text_path)
    return Cut(tokens, before, context)


def passages_of(
    request: Request, tokenizer: Tokenizer, longest: int
) -> tuple[list[list[int]], int]:
    """Cut the text into passages: paragraphs, and windows of those that are longer than these.

    Returns
    -------
    passages : list of list of int
        Each with the special tokens that the model wants around a text.
    context : int
        The most tokens of a passage, with these.
    """
    context = usual_context(request.context, longest, request.paths[-1])
    before, after = _around(tokenizer)
    step = max(1, context - len(before) - len(after))
    paragraphs = (each.strip() for each in _BLANK_LINES.split(request.text.decode()))
    passages = []
    for paragraph in paragraphs:
        tokens = tokenizer.encoded(paragraph, special=False)
        passages += [
            [*before, *tokens[begin : begin + step], *after]
            for begin in range(0, len(tokens), step)
        ]
    if not passages:
        raise ValueError(f"{request.text_path}: the text has no tokens. Give one with words")
    return passages, context


def _around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the special tokens before a text, and those behind it."""
    plain = tokenizer.encoded("a", special=False)
    whole = tokenizer.encoded("a", special=True)
    before = before_text(whole, plain)
    return before, whole[len(before) + len(plain) :]


def _difference(result: Mapping[str, int], reference: Mapping[str, int]) -> str:
    ours, theirs = ({number: text for text, number in each.items()} for each in (result, reference))
    if len(ours) != len(theirs):
        return f"{len(ours)} tokens, and {len(theirs)}"
    number = min(each for each in {*ours, *theirs} if ours.get(each) != theirs.get(each))
    shown = (quoted(each.get(number, "missing")) for each in (ours, theirs))
    return f"token {number} is {', and '.join(shown)}"
