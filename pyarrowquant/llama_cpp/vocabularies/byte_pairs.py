"""Tokens of bytes, as GPT-2 had them first."""

from __future__ import annotations

from typing import Any

from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.post_processor import frame_of
from pyarrowquant.llama_cpp.pre_tokenizers import NAMES, pre_tokenizer_of
from pyarrowquant.llama_cpp.special_tokens import Around, describe_special
from pyarrowquant.llama_cpp.tokenizer_files import TOKENIZER, TokenizerFiles
from pyarrowquant.llama_cpp.tokens import Tokens
from pyarrowquant.llama_cpp.vocabularies.tokenizer_json import (
    check_plain_merges,
    check_prefix_space,
    import_tokenizers,
    load,
)

BYTES = "ByteLevel"
_SPACE_IN_MERGES = chr(ord(" ") + 256)
# What only cuts texts, so that the words tell all of it.
_CUTS = (
    "BertPreTokenizer",
    BYTES,
    "CharDelimiterSplit",
    "Digits",
    "FixedLength",
    "Punctuation",
    "Split",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
)


def describe_byte_pairs(
    files: TokenizerFiles, rows: int, metadata: Metadata, pre_tokenizer: str | None
) -> None:
    """Add the keys of a tokenizer whose words are bytes, each as a letter.

    Parameters
    ----------
    files : TokenizerFiles
    rows : int
        Of the embeddings.
    metadata : Metadata
    pre_tokenizer : str or None
        What llama.cpp calls the way that texts are split; None to find it.
    """
    tokens = Tokens(rows)
    tokens.fill(files.vocabulary.items(), files.path(TOKENIZER))
    merges = [
        " ".join(part.replace(" ", _SPACE_IN_MERGES) for part in pair) for pair in files.merges
    ]
    check_plain_merges(files)
    _check_steps(files)
    tokenizer = load(files)
    _check_alphabet(files)
    if pre_tokenizer is None:
        pre_tokenizer = _found(files, tokenizer)
    tokens.add(files.added)
    tokens.describe(metadata.add, "gpt2", pre_tokenizer, scores=False)
    metadata.add.add_token_merges(merges)
    describe_special(files, tokens, metadata, Around(frame_of(files)))


def _check_steps(files: TokenizerFiles) -> None:
    for step in files.steps("normalizer"):
        if step["type"] != "NFC":  # which changes few texts, as most are so already
            raise files.unlike(
                "normalizer",
                step,
                "which llama.cpp does not do to texts of such tokenizers. No GGUF file can make "
                "up for it",
            )
    steps = files.steps("pre_tokenizer")
    for step in steps:
        if step["type"] not in _CUTS or sum(each["type"] == BYTES for each in steps) > 1:
            raise files.unlike(
                "pre_tokenizer",
                step,
                "which changes words beside one ByteLevel, as llama.cpp does not. No GGUF file "
                "can make up for it",
            )
        if step["type"] == BYTES and step.get("add_prefix_space", True) is not False:
            raise files.unlike(
                "pre_tokenizer",
                step,
                "and llama.cpp puts no space before texts of such tokenizers. Say "
                '"add_prefix_space": false if texts may go without',
            )
    check_prefix_space(files, puts=False)


def _check_alphabet(files: TokenizerFiles) -> None:
    """Raise where a byte has no token, but what stands for it, which llama.cpp leaves out."""
    replaces = files.model.get("byte_fallback") is True or isinstance(
        files.model.get("unk_token"), str
    )
    alphabet = import_tokenizers().pre_tokenizers.ByteLevel.alphabet()
    missing = sorted(set(alphabet) - files.vocabulary.keys())
    if replaces and missing:
        raise files.unlike(
            "model.vocab",
            missing,
            "letters that stand for bytes and are missing in it. llama.cpp leaves such bytes out, "
            "where this tokenizer has unk_token or byte_fallback for them. Say null and false if "
            "they may be left out",
        )


def _found(files: TokenizerFiles, tokenizer: Any) -> str:
    name = pre_tokenizer_of(tokenizer, files.model.get("ignore_merges") is True)
    if name is None:
        raise ValueError(
            f"'{files.path(TOKENIZER)}' splits texts in a way that is none of those known by name "
            "here. Say what llama.cpp calls it by pre_tokenizer (--pre-tokenizer on the command "
            f"line): one of {', '.join(sorted(NAMES))}"
        )
    return name
