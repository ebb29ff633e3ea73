"""The files of a tokenizer, checked for what is taken from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.config import read_config
from pyarrowquant.reading.location import Location

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SENTENCEPIECE = "tokenizer.model"


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in a text before all else.

    Attributes
    ----------
    special : bool
        Whether it controls the model, and is no part of a text.
    """

    id: int
    content: str
    special: bool


class TokenizerFiles:
    """What the folder of a model says of its tokenizer."""

    def __init__(self, folder: Location) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        return self.folder.within(name).exists()

    def path(self, name: str) -> str:
        return str(self.folder.within(name))

    def read(self, name: str) -> bytes:
        with self.folder.within(name).open() as file:
            data: bytes = file.buffer(0, file.size).to_pybytes()
            return data

    @cached_property
    def tokenizer(self) -> Mapping[str, Any]:
        """What tokenizer.json says."""
        return read_config(self.folder.within(TOKENIZER))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What tokenizer_config.json says; nothing without one."""
        if not self.has(TOKENIZER_CONFIG):
            return {}
        return read_config(self.folder.within(TOKENIZER_CONFIG))

    @property
    def model(self) -> Mapping[str, Any]:
        """The model of tokenizer.json, which makes tokens of words."""
        return self.part(self.tokenizer, "model")

    def part(self, outer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        found = outer.get(key)
        if not isinstance(found, dict):
            raise self.wrong(key, "an object", found)
        return found

    def wrong(self, key: str, what: str, found: object, name: str = TOKENIZER) -> ValueError:
        return ValueError(f"'{self.path(name)}': {key} must be {what}, it is {quoted(found)}")

    def kinds(self, key: str) -> set[str]:
        """Return the types of a normalizer or the like of tokenizer.json, and of its parts."""
        found = self.tokenizer.get(key)
        parts = [found] if isinstance(found, dict) else []
        kinds: set[str] = set()
        while parts:
            part = parts.pop()
            kinds.add(str(part.get("type")))
            parts += [
                each
                for inner in ("normalizers", "pretokenizers", "processors", "decoders")
                for each in part.get(inner) or []
                if isinstance(each, dict)
            ]
        return kinds - {"Sequence"}

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The tokens of the model, by their texts."""
        found = self.model.get("vocab")
        if not isinstance(found, dict) or not found:
            raise self.wrong("model.vocab", "an object of tokens and their numbers", found)
        for token, number in found.items():
            self._check_number(f"model.vocab[{quoted(token)}]", number)
        return found

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """Pairs of tokens that become one, the first ones first."""
        found = self.model.get("merges")
        if not isinstance(found, list) or not found:
            raise self.wrong("model.merges", "a list of pairs of tokens", found)
        pairs = []
        for merge in found:
            pair = merge.split(" ") if isinstance(merge, str) else merge
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not all(isinstance(part, str) and part for part in pair)
            ):
                raise self.wrong("model.merges", "a list of pairs of tokens", merge)
            pairs.append((pair[0], pair[1]))
        return pairs

    @cached_property
    def added(self) -> list[AddedToken]:
        found = self.tokenizer.get("added_tokens") or []
        if not isinstance(found, list):
            raise self.wrong("added_tokens", "a list", found)
        tokens = []
        for token in found:
            if not isinstance(token, dict) or not isinstance(token.get("content"), str):
                raise self.wrong("added_tokens", "a list of objects with id and content", token)
            self._check_number("added_tokens", token.get("id"))
            tokens.append(AddedToken(token["id"], token["content"], token.get("special") is True))
        return tokens

    def _check_number(self, key: str, number: object) -> None:
        if type(number) is not int or not 0 <= number < 2**31:
            raise self.wrong(key, "a whole number of 0 to 2^31-1", number)
