"""Mistral's own file of a tokenizer, as what tokenizer.json would say."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from pyarrowquant._core.quoting import quoted

TEKKEN = "tekken.json"
# The special tokens that files without a list of them mean, the first ones of all.
_USUAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)
# Tokens with a part of their own, by the keys of tokenizer_config.json.
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def as_tokenizer(said: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return what tokenizer.json says for the same tokenizer.

    Parameters
    ----------
    said : mapping
        What tekken.json says.
    path : str
        What errors call it.

    Raises
    ------
    ValueError
        It lacks something, or has something of another kind.
    """
    config = said.get("config")
    if not isinstance(config, dict):
        raise _wrong(path, "config", "an object", config)
    pattern = config.get("pattern")
    if not isinstance(pattern, str):
        raise _wrong(path, "config.pattern", "a text", pattern)
    special, size = (
        _number(path, config, key) for key in ("default_num_special_tokens", "default_vocab_size")
    )
    words = _words(said.get("vocab"), path)[: max(size - special, 0)]
    letters = [_letters(word) for word in words]
    first = special  # numbers of words come after those of special tokens
    vocabulary = {text: first + rank for rank, text in enumerate(letters)}
    if len(vocabulary) != len(letters):
        raise ValueError(f"'{path}': vocab has a word twice. Take the file of the weights")
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    begin = NAMED["bos_token"]
    added = _special(said.get("special_tokens"), special, path)
    numbers = {token["content"]: token["id"] for token in added}
    if begin not in numbers:
        raise ValueError(f"'{path}': special_tokens lack {begin}, with which texts begin")
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{**split, "invert": False}, {**bytes_, "trim_offsets": True}],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": begin, "type_id": 0}}, sequence],
            "pair": [sequence, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {begin: {"id": begin, "ids": [numbers[begin]], "tokens": [begin]}},
        },
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": _merges(letters, vocabulary),
            "ignore_merges": True,
        },
    }


def _merges(letters: list[str], vocabulary: Mapping[str, int]) -> list[list[str]]:
    """Return the pairs that make each word, of words before it or not, the first words first.

    Words are joined in the order of their numbers, whatever they are joined of.
    """
    return [
        [text[:cut], text[cut:]]
        for text in letters
        for cut in range(1, len(text))
        if text[:cut] in vocabulary and text[cut:] in vocabulary
    ]


def _words(said: object, path: str) -> list[bytes]:
    if not isinstance(said, list) or not said:
        raise _wrong(path, "vocab", "a list of words", said)
    words = []
    for number, word in enumerate(said):
        if not isinstance(word, dict) or word.get("rank") != number:
            raise _wrong(path, f"vocab[{number}]", f"a word of rank {number}", word)
        try:
            words.append(base64.b64decode(word["token_bytes"], validate=True))
        except (KeyError, TypeError, ValueError):
            raise _wrong(path, f"vocab[{number}]", "a word with token_bytes", word) from None
    return words


def _special(said: object, most: int, path: str) -> list[dict[str, Any]]:
    """Return special tokens as tokenizer.json lists added ones."""
    if said is None:
        said = [{"rank": rank, "token_str": text} for rank, text in enumerate(_USUAL)]
    if not isinstance(said, list):
        raise _wrong(path, "special_tokens", "a list", said)
    added = []
    for token in said:
        number = token.get("rank") if isinstance(token, dict) else None
        text = token.get("token_str") if isinstance(token, dict) else None
        if type(number) is not int or not 0 <= number < most or not isinstance(text, str):
            what = f"of tokens with token_str, and a rank below {most}"
            raise _wrong(path, "special_tokens", what, token)
        added.append(
            {
                "id": number,
                "content": text,
                "special": token.get("is_control", True) is True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        )
    return added


def _letters(word: bytes) -> str:
    """Return bytes as the letters that stand for them in vocabularies of bytes."""
    return "".join(_LETTERS[byte] for byte in word)


def _alphabet() -> list[str]:
    """Return a letter for each byte: itself where that is one to see, else one beyond all."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in seen else chr(next(others)) for byte in range(256)]


_LETTERS = _alphabet()


def _number(path: str, config: Mapping[str, Any], key: str) -> int:
    found = config.get(key)
    if type(found) is not int or not 0 < found < 2**31:
        raise _wrong(path, f"config.{key}", "a number above 0", found)
    return found


def _wrong(path: str, key: str, what: str, found: object) -> ValueError:
    return ValueError(f"'{path}': {key} must be {what}, it is {quoted(found)}")
