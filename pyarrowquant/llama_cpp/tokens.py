"""The list of a model's tokens, as llama.cpp wants it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.tokenizer_files import AddedToken

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # ggml's numbers
SPACE = "\u2581"  # what sentencepiece has for a space
_SCORE_OF_ADDED = -1000.0
_SCORE_OF_UNUSED = -10000.0


@dataclass
class Tokens:
    """Tokens by their numbers.

    Attributes
    ----------
    texts : list of str
    types : list of int
    scores : list of float
    """

    texts: list[str]
    types: list[int]
    scores: list[float]

    @classmethod
    def unused(cls, count: int) -> Tokens:
        """Return so many tokens that no text has."""
        texts = [f"[PAD{number}]" for number in range(count)]
        return cls(texts, [UNUSED] * count, [_SCORE_OF_UNUSED] * count)

    def __len__(self) -> int:
        return len(self.texts)

    def set(self, number: int, text: str, kind: int, score: float = 0.0) -> None:
        self.texts[number] = text
        self.types[number] = kind
        self.scores[number] = score

    def fill(self, vocabulary: Iterable[tuple[str, int]], path: str) -> None:
        """Put in the tokens of a model; two of a number, or one beyond the rows, is an error."""
        for text, number in vocabulary:
            if number >= len(self):
                raise ValueError(
                    f"'{path}' has the token {quoted(text)} of number {number}, and the model's "
                    f"embeddings have {len(self)} rows. Take the tokenizer that came with the "
                    "weights"
                )
            if self.types[number] != UNUSED:
                raise ValueError(
                    f"'{path}' has two tokens of number {number}: {quoted(self.texts[number])} and "
                    f"{quoted(text)}"
                )
            self.set(number, text, NORMAL)

    def add(self, added: Sequence[AddedToken], path: str) -> None:
        """Put in added tokens, which may be among those of the model already."""
        beyond = [token.content for token in added if token.id >= len(self)]
        if beyond:
            warnings.warn(
                f"'{path}' has tokens for which the model has no row, and which no text can have: "
                f"{first_few(list(map(repr, beyond)))}",
                UserWarning,
                stacklevel=users_level(),
            )
        for token in added:
            if token.id >= len(self):
                continue
            if token.special or _looks_special(token.content):
                self.set(token.id, token.content, CONTROL, _SCORE_OF_ADDED)
            else:
                text = token.content.replace(SPACE, " ")
                self.set(token.id, text, USER_DEFINED, _SCORE_OF_ADDED)

    def describe(self, add: Any, model: str, pre_tokenizer: str, scores: bool) -> None:
        """Add the keys of the list, by the methods of gguf's writer."""
        add.add_tokenizer_model(model)
        add.add_tokenizer_pre(pre_tokenizer)
        add.add_token_list(self.texts)
        if scores:
            add.add_token_scores(self.scores)
        add.add_token_types(self.types)


def _looks_special(text: str) -> bool:
    """Whether a token controls the model that its tokenizer does not call special."""
    return (
        text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<\uff5c") and text.endswith("\uff5c>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )
