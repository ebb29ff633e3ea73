"""vocab.json and merges.txt of tokenizers of bytes, as what tokenizer.json would say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyarrowquant._core.quoting import quoted

VOCABULARY = "vocab.json"
MERGES = "merges.txt"
_VERSION = "#version"
_END = "<|endoftext|>"


@dataclass(frozen=True)
class Kind:
    """What a class of transformers does with such files.

    Attributes
    ----------
    split : str or None
        The expression that splits texts; None for that of ByteLevel.
    composes : bool
        Whether texts are normalized by NFC.
    named : mapping of str to str
        Tokens with a key of their own, where no file says them.
    """

    split: str | None
    composes: bool
    named: Mapping[str, str]


KINDS: Mapping[str, Kind] = {
    "GPT2Tokenizer": Kind(None, False, {"bos_token": _END, "eos_token": _END, "unk_token": _END}),
    "Qwen2Tokenizer": Kind(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+",
        True,
        {"eos_token": _END, "unk_token": _END, "pad_token": _END},
    ),
}


def kind_of(named: object, path: str) -> Kind:
    """Return the kind of a class; another one than those known is an error.

    Parameters
    ----------
    named : object
        What tokenizer_config.json says for tokenizer_class.
    path : str
        The file, for errors.
    """
    kind = KINDS.get(named.removesuffix("Fast")) if isinstance(named, str) else None
    if kind is None:
        raise ValueError(
            f"'{path}': tokenizer_class is {quoted(named)}, and {VOCABULARY} and {MERGES} do not "
            f"say how texts are split. Known are {' and '.join(KINDS)}. Otherwise write "
            "tokenizer.json, which says it, with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    return kind


def as_tokenizer(
    kind: Kind,
    vocabulary: Mapping[str, Any],
    merges: bytes,
    special: Iterable[tuple[str, int]],
    adds_space: bool,
    path: str,
) -> dict[str, Any]:
    """Return what tokenizer.json says for the same tokenizer.

    Parameters
    ----------
    kind : Kind
    vocabulary : mapping
        What vocab.json says.
    merges : bytes
        What merges.txt has.
    special : iterable of (str, int)
        Special tokens and their numbers.
    adds_space : bool
        Whether texts get a space at their beginning.
    path : str
        merges.txt, for errors.
    """
    of_bytes = {
        "type": "ByteLevel",
        "add_prefix_space": adds_space,
        "trim_offsets": True,
        "use_regex": kind.split is None,
    }
    split = {"type": "Split", "pattern": {"Regex": kind.split}, "behavior": "Isolated"}
    steps = [] if kind.split is None else [{**split, "invert": False}]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": text, "special": True, **flags} for text, number in special
        ],
        "normalizer": {"type": "NFC"} if kind.composes else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, of_bytes]},
        "post_processor": None,
        "model": {"type": "BPE", "vocab": dict(vocabulary), "merges": _pairs(merges, path)},
    }


def _pairs(merges: bytes, path: str) -> list[list[str]]:
    """Return the pairs of lines, as tokenizers reads them."""
    try:
        text = merges.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is no UTF-8 from byte {error.start} on") from None
    pairs = []
    for number, line in enumerate(re.split("\r?\n", text), 1):
        if line.startswith(_VERSION) or not line:
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise ValueError(
                f"'{path}': line {number} must be two tokens with a space between them, it is "
                f"{quoted(line)}. Take the file that came with the weights"
            )
        pairs.append(pair)
    return pairs
