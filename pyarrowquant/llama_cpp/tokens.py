"""The list of a model's tokens, as llama.cpp wants it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.overlaps import told_apart_otherwise
from pyarrowquant.llama_cpp.tokenizer_files import AddedToken

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # ggml's numbers
SPACE = "\u2581"  # what sentencepiece has for a space
_SCORE_OF_ADDED = -1000.0
_SCORE_OF_UNUSED = -10000.0


class Tokens:
    """Tokens by their numbers.

    Attributes
    ----------
    texts : list of str
    types : list of int
    scores : list of float
    numbers : dict of str to int
        The number of each text but those of rows that no text has.
    """

    def __init__(self, rows: int) -> None:
        """Make as many tokens as the embeddings have rows; no text has them yet."""
        self.texts = [""] * rows
        self.types = [UNUSED] * rows
        self.scores = [_SCORE_OF_UNUSED] * rows
        self.numbers: dict[str, int] = {}
        self._free = set(range(rows))
        self._path = ""

    def __len__(self) -> int:
        return len(self.texts)

    def fill(self, vocabulary: Iterable[tuple[str, int]], path: str) -> None:
        """Put in the tokens of a model; two of a number, or one beyond the rows, is an error."""
        self._path = path
        for text, number in vocabulary:
            if number >= len(self):
                raise ValueError(
                    f"'{path}' has the token {quoted(text)} of number {number}, and the model's "
                    f"embeddings have {len(self)} rows. Take the tokenizer that came with the "
                    "weights"
                )
            if number not in self._free:
                raise ValueError(
                    f"'{path}' has two tokens of number {number}: {quoted(self.texts[number])} and "
                    f"{quoted(text)}"
                )
            if text in self.numbers:
                raise ValueError(
                    f"'{path}' has the token {quoted(text)} twice, of the numbers "
                    f"{self.numbers[text]} and {number}. Take the tokenizer that came with the "
                    "weights"
                )
            self._put(number, text)
            self.types[number], self.scores[number] = NORMAL, 0.0

    def add(self, added: Sequence[AddedToken], replaces: bool = False) -> None:
        """Put in added tokens, which may be among those of the model already.

        Parameters
        ----------
        added : sequence of AddedToken
        replaces : bool
            Whether one may take the number of another token of the model.
        """
        self._warn_of_strips(added)
        self._warn_of_overlaps([token for token in added if token.id < len(self)])
        beyond = {token.content: token.said_in for token in added if token.id >= len(self)}
        if beyond:
            warnings.warn(
                f"{next(iter(beyond.values()))} has tokens for which the model has no row, and "
                f"which no text can have: {first_few(list(map(repr, beyond)))}",
                UserWarning,
                stacklevel=users_level(),
            )
        first: dict[int, str] = {}
        for token in added:
            other = self.numbers.get(token.content, token.id)
            if other != token.id:
                raise ValueError(
                    f"{token.said_in} has {quoted(token.content)} of number {token.id}, which is "
                    f"also the token of number {other}. llama.cpp loads no file with a text "
                    "twice: take the tokenizer that came with the weights"
                )
            if token.id >= len(self) or first.get(token.id) == token.content:
                continue
            here = self.texts[token.id]
            if token.id not in self._free and here != token.content:
                if token.id in first or not replaces:
                    raise ValueError(
                        f"{token.said_in} has {quoted(token.content)} of number {token.id}, which "
                        f"is that of {quoted(here)}. Take the tokenizer that came with the weights"
                    )
                del self.numbers[here]
            if token.single_word:
                raise ValueError(
                    f"{token.said_in} has {quoted(token.content)} with single_word true, which "
                    "llama.cpp does not know: it finds the token within words too. Say false if "
                    "it may"
                )
            if token.id in self._free or here != token.content:
                self.scores[token.id] = _SCORE_OF_ADDED
            first[token.id] = token.content
            controls = token.special or _looks_special(token.content)
            self._put(token.id, token.content)
            self.types[token.id] = CONTROL if controls else USER_DEFINED

    def rename(self, number: int, text: str) -> None:
        """Give a token another text in the file; it keeps its place in `numbers`."""
        self.texts[number] = text

    def _put(self, number: int, text: str) -> None:
        self.texts[number] = text
        self.numbers[text] = number
        self._free.discard(number)

    def _warn_of_strips(self, added: Sequence[AddedToken]) -> None:
        # Of encoders the mask strips, which is in no text that is embedded.
        strips = {
            token.content: token.said_in
            for token in added
            if token.strips and "mask" not in token.content.lower()
        }
        if strips:
            warnings.warn(
                f"{next(iter(strips.values()))} has tokens with lstrip or rstrip, so that spaces "
                "beside them go, which llama.cpp mostly leaves: "
                f"{first_few(list(map(repr, strips)))}",
                UserWarning,
                stacklevel=users_level(),
            )

    def _warn_of_overlaps(self, added: Sequence[AddedToken]) -> None:
        if found := told_apart_otherwise(added):
            (text, (first, second)), *_ = found.items()
            places = {token.content: token.said_in for token in added}
            warnings.warn(
                f"{places[second]} has {quoted(second)}, which overlaps {quoted(first)} in texts "
                f"such as {quoted(text)}: llama.cpp takes the longer token there, and tokenizers "
                "the first one. Keep such texts out of prompts",
                UserWarning,
                stacklevel=users_level(),
            )

    def describe(self, add: Any, model: str, pre_tokenizer: str, scores: bool) -> None:
        """Add the keys of the list, by the methods of gguf's writer."""
        self._complete()
        add.add_tokenizer_model(model)
        add.add_tokenizer_pre(pre_tokenizer)
        add.add_token_list(self.texts)
        if scores:
            add.add_token_scores(self.scores)
        add.add_token_types(self.types)

    def _complete(self) -> None:
        """Name the rows that no text has; two tokens of a text are an error."""
        taken: dict[str, int] = {}
        for number, text in enumerate(self.texts):
            if number in self._free:
                continue
            text = text.split("\0")[0]  # as llama.cpp reads it
            other = taken.setdefault(text, number) if text else number
            if other != number:
                raise ValueError(
                    f"'{self._path}' and what is beside it have the tokens {other} and {number}, "
                    f"which would both be {quoted(text)} to llama.cpp, and it loads no such file. "
                    "Rename one of them"
                )
        for number in self._free:
            text = f"[PAD{number}]"
            while text in taken:
                text += "_"
            self.texts[number] = text


def _looks_special(text: str) -> bool:
    """Whether a token controls the model that its tokenizer does not call special."""
    return (
        text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<\uff5c") and text.endswith("\uff5c>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )
