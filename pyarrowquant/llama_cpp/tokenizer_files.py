"""The files of a tokenizer, checked for what is taken from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp import merges as merges_file
from pyarrowquant.llama_cpp import tekken
from pyarrowquant.llama_cpp.merges import MERGES, VOCABULARY
from pyarrowquant.llama_cpp.tekken import TEKKEN
from pyarrowquant.reading.config import CONFIG, read_config
from pyarrowquant.reading.location import Location

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SENTENCEPIECE = "tokenizer.model"
ADDED_TOKENS = "added_tokens.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
GENERATION_CONFIG = "generation_config.json"

_NESTED = ("normalizers", "pretokenizers", "processors")  # what the parts of a Sequence are under
_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_ADDITIONAL = ("additional_special_tokens", "extra_special_tokens")


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in a text before all else.

    Attributes
    ----------
    special : bool
        Whether it controls the model, and is no part of a text.
    normalized : bool
        Whether it is found in normalized texts.
    single_word : bool
        Whether it is found only where no letters are beside it.
    strips : bool
        Whether spaces beside it become part of it.
    said_in : str
        The file and the key that have it.
    """

    id: int
    content: str
    special: bool
    normalized: bool
    single_word: bool
    strips: bool
    said_in: str


class TokenizerFiles:
    """What the folder of a model says of its tokenizer.

    Where there is no tokenizer.json, a tekken.json stands for it, or else, without a
    tokenizer.model, vocab.json and merges.txt do.
    """

    def __init__(self, folder: Location) -> None:
        self.folder = folder

    @cached_property
    def _stand_in(self) -> str | None:
        """Which file stands for a tokenizer.json that is not there."""
        if self._exists(TOKENIZER):
            return None
        if self._exists(TEKKEN):
            return TEKKEN
        has_pieces = self._exists(SENTENCEPIECE)
        has_merges = self._exists(VOCABULARY) and self._exists(MERGES)
        return VOCABULARY if has_merges and not has_pieces else None

    def _exists(self, name: str) -> bool:
        return self.folder.within(name).exists()

    def has(self, name: str) -> bool:
        return self._exists(name) or (name == TOKENIZER and self._stand_in is not None)

    def path(self, name: str) -> str:
        stands = self._stand_in if name == TOKENIZER else None
        return str(self.folder.within(stands or name))

    def read(self, name: str) -> bytes:
        if name == TOKENIZER and self._stand_in is not None:
            return json.dumps(self.tokenizer).encode()
        with self.folder.within(name).open() as file:
            data: bytes = file.buffer(0, file.size).to_pybytes()
            return data

    def said(self, name: str) -> Mapping[str, Any]:
        """Return what a file of JSON says; nothing without it."""
        if name not in self._said:
            self._said[name] = read_config(self.folder.within(name)) if self.has(name) else {}
        return self._said[name]

    @cached_property
    def _said(self) -> dict[str, Mapping[str, Any]]:
        return {}

    @cached_property
    def tokenizer(self) -> Mapping[str, Any]:
        """What tokenizer.json says."""
        said = read_config(self.folder.within(self._stand_in or TOKENIZER))
        if self._stand_in == TEKKEN:
            return tekken.as_tokenizer(said, self.path(TOKENIZER))
        return self._of_merges(said) if self._stand_in == VOCABULARY else said

    def _of_merges(self, vocabulary: Mapping[str, Any]) -> dict[str, Any]:
        return merges_file.as_tokenizer(
            self._kind_of_merges,
            vocabulary,
            self.read(MERGES),
            self._special_numbers(vocabulary),
            self.switch("add_prefix_space") is True,
            self.path(MERGES),
        )

    @property
    def _kind_of_merges(self) -> merges_file.Kind:
        return merges_file.kind_of(self.config.get("tokenizer_class"), self.path(TOKENIZER_CONFIG))

    def _special_numbers(self, vocabulary: Mapping[str, Any]) -> list[tuple[str, int]]:
        """Return the special tokens and their numbers, whichever files have these."""
        texts: dict[str, str] = {}
        for key in _NAMED:
            if (named := self.named(key)) is not None:
                texts.setdefault(named[0], f"'{self.path(named[1])}': {key}")
        texts = self.additional | texts
        numbers = {token.content: token.id for token in self._added_beside} | dict(vocabulary)
        for text, said_in in texts.items():
            if text not in numbers:
                raise ValueError(
                    f"{said_in} has {quoted(text)}, which has no number in {VOCABULARY}, nor in "
                    f"{ADDED_TOKENS}, nor in added_tokens_decoder of {TOKENIZER_CONFIG}. Take the "
                    "tokenizer that came with the weights"
                )
        return [(text, numbers[text]) for text in texts]

    @property
    def config(self) -> Mapping[str, Any]:
        """What tokenizer_config.json says; nothing without one."""
        return self.said(TOKENIZER_CONFIG)

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

    def unlike(self, key: str, found: object, why: str, name: str = TOKENIZER) -> ValueError:
        """Return the error of what llama.cpp does not do."""
        return ValueError(f"'{self.path(name)}': {key} is {quoted(found)}, {why}")

    def steps(self, key: str) -> list[Mapping[str, Any]]:
        """Return a normalizer or the like of tokenizer.json: its parts, in their order."""
        found = self.tokenizer.get(key)
        return [] if found is None else self._flat(key, found)

    def _flat(self, key: str, found: object) -> list[Mapping[str, Any]]:
        if not isinstance(found, dict) or not isinstance(found.get("type"), str):
            raise self.wrong(key, "an object with a type", found)
        if found["type"] != "Sequence":
            return [found]
        parts = next((found[inner] for inner in _NESTED if inner in found), None)
        if not isinstance(parts, list):
            raise self.wrong(key, "a Sequence with a list of its parts", found)
        return [step for part in parts for step in self._flat(key, part)]

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The tokens of the model, by their texts."""
        found = self.model.get("vocab")
        if not isinstance(found, dict) or not found:
            raise self.wrong("model.vocab", "an object of tokens and their numbers", found)
        for token, number in found.items():
            self._check_number(f"model.vocab[{quoted(token)}]", number, TOKENIZER)
        return found

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """Pairs of tokens that become one, the first ones first.

        Of one that is said twice `tokenizers` takes the last place, and llama.cpp the first: it is
        given once.
        """
        found = self.model.get("merges")
        if not isinstance(found, list) or not found:
            raise self.wrong("model.merges", "a list of pairs of tokens", found)
        pairs: dict[tuple[str, str], None] = {}
        for merge in found:
            pair = merge.split(" ") if isinstance(merge, str) else merge
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not all(isinstance(part, str) and part for part in pair)
            ):
                raise self.wrong("model.merges", "a list of pairs of tokens", merge)
            both = (pair[0], pair[1])
            pairs.pop(both, None)
            pairs[both] = None
        return list(pairs)

    @cached_property
    def added(self) -> list[AddedToken]:
        """Tokens that are added to those of the model, whichever file says so."""
        tokens = []
        if self.has(TOKENIZER):
            found = self.tokenizer.get("added_tokens") or []
            if not isinstance(found, list):
                raise self.wrong("added_tokens", "a list", found)
            for token in found:
                number = token.get("id") if isinstance(token, dict) else None
                tokens.append(self._added(token, number, "added_tokens", TOKENIZER))
        return tokens + self._added_beside

    @cached_property
    def _added_beside(self) -> list[AddedToken]:
        """Those of other files than tokenizer.json."""
        tokens = []
        decoder = self.config.get("added_tokens_decoder") or {}
        if not isinstance(decoder, dict):
            raise self.wrong("added_tokens_decoder", "an object", decoder, TOKENIZER_CONFIG)
        for key, token in decoder.items():
            number = int(key) if key.isascii() and key.isdigit() else key
            said_in = f"added_tokens_decoder[{quoted(key)}]"
            tokens.append(self._added(token, number, said_in, TOKENIZER_CONFIG))
        for text, number in self.said(ADDED_TOKENS).items():
            token = {"content": text, "special": text in self.additional}
            tokens.append(self._added(token, number, quoted(text), ADDED_TOKENS))
        return tokens

    def _added(self, token: object, number: object, key: str, name: str) -> AddedToken:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise self.wrong(key, "an object with content, or a list of such with id", token, name)
        if not _is_text(token["content"]):
            raise self.wrong(key, "of a text, without halves of UTF-16", token, name)
        self._check_number(key, number, name)
        assert isinstance(number, int)
        return AddedToken(
            number,
            token["content"],
            special=token.get("special") is True,
            normalized=token.get("normalized") is True,
            single_word=token.get("single_word") is True,
            strips=token.get("lstrip") is True or token.get("rstrip") is True,
            said_in=f"'{self.path(name)}': {key}",
        )

    def _check_number(self, key: str, number: object, name: str) -> None:
        if type(number) is not int or not 0 <= number < 2**31:
            raise self.wrong(key, "a whole number of 0 to 2^31-1", number, name)

    @cached_property
    def additional(self) -> dict[str, str]:
        """Texts of special tokens without a key of their own, with the file and key of each."""
        found: dict[str, str] = {}
        for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
            for key in _ADDITIONAL:
                said = self.said(name).get(key) or []
                for token in said.values() if isinstance(said, dict) else said:
                    text = _text_of(token)
                    if text is None:
                        raise self.wrong(key, "a list of texts", said, name)
                    found.setdefault(text, f"'{self.path(name)}': {key}")
        return found

    def named(self, key: str) -> tuple[str, str] | None:
        """Return the text of a token that has a key, such as eos_token, and the file's name."""
        for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
            said = self.said(name).get(key)
            if said is None or said == "":
                continue
            text = _text_of(said)
            if text is None:
                raise self.wrong(key, "a text, or an object with content", said, name)
            return text, name
        usual = self._usual_names.get(key)
        return None if usual is None else (usual, TOKENIZER)

    @property
    def _usual_names(self) -> Mapping[str, str]:
        """Tokens that no file has to say, by their keys."""
        if self._stand_in == VOCABULARY:
            return self._kind_of_merges.named
        return tekken.NAMED if self._stand_in == TEKKEN else {}

    def numbers(self, key: str) -> list[tuple[int, str]]:
        """Return the numbers of a key such as eos_token_id, with the name of the file of each."""
        configs = [(self.said(CONFIG), CONFIG), (self.said(GENERATION_CONFIG), GENERATION_CONFIG)]
        if isinstance(text_config := self.said(CONFIG).get("text_config"), dict):
            configs.insert(1, (text_config, CONFIG))
        found: dict[int, str] = {}
        for config, name in configs:
            said = config.get(key)
            for number in said if isinstance(said, list) else [said]:
                if number is None or (type(number) is int and -(2**31) <= number < 0):
                    continue  # -1 is none
                self._check_number(key, number, name)
                found.setdefault(number, name)
        return list(found.items())

    def switch(self, key: str) -> bool | None:
        """Return whether tokenizer_config.json says yes or no; None where it does not say."""
        found = self.config.get(key)
        if found is not None and not isinstance(found, bool):
            raise self.wrong(key, "true or false", found, TOKENIZER_CONFIG)
        return found


def _text_of(said: object) -> str | None:
    text = said.get("content") if isinstance(said, dict) else said
    return text if isinstance(text, str) else None


def _is_text(said: str) -> bool:
    """Whether UTF-8 has it; JSON may have half a pair of UTF-16."""
    return not any("\ud800" <= letter <= "\udfff" for letter in said)
