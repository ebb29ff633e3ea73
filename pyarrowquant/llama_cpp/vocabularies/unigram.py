"""Sentencepiece's tokens with scores of their own, of which llama.cpp takes the likeliest."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.post_processor import frame_of
from pyarrowquant.llama_cpp.special_tokens import Around, describe_special
from pyarrowquant.llama_cpp.tokenizer_files import TOKENIZER, TokenizerFiles
from pyarrowquant.llama_cpp.tokens import SPACE, UNKNOWN, Tokens
from pyarrowquant.llama_cpp.vocabularies.spaces import (
    AFTER_TOKENS,
    AT_BEGIN,
    AT_END,
    METASPACE,
    WITH_OTHERS,
    Metaspace,
    check_words,
    metaspace_of,
    warn_of_spaces,
)
from pyarrowquant.llama_cpp.vocabularies.tokenizer_json import (
    check_prefix_space,
    load,
)

_RUNS = {"Regex": " {2,}"}
_WHITE = "\t\n\r\u00a0\u3000"  # at which WhitespaceSplit splits too


def describe_unigram(files: TokenizerFiles, rows: int, metadata: Metadata) -> None:
    """Add the keys of a Unigram tokenizer of tokenizer.json."""
    vocabulary = files.model.get("vocab")
    if not isinstance(vocabulary, list) or not all(map(_is_scored, vocabulary)):
        raise files.wrong("model.vocab", "a list of tokens with scores", vocabulary)
    unknown = files.model.get("unk_id")
    if type(unknown) is not int or not 0 <= unknown < len(vocabulary):
        raise files.wrong("model.unk_id", "the number of a token", unknown)
    if files.model.get("byte_fallback") is True:
        raise files.unlike(
            "model.byte_fallback",
            True,
            "and llama.cpp has no bytes for the letters that such tokenizers lack. Say false if "
            "these may be unknown",
        )
    tokens = Tokens(rows)
    texts = [text for text, _ in vocabulary]
    tokens.fill(((text, number) for number, text in enumerate(texts)), files.path(TOKENIZER))
    for number, (_, score) in enumerate(vocabulary):
        tokens.scores[number] = float(score)
    charsmap = _charsmap(files)
    spaces = _Spaces(files, texts, load(files).normalizer)
    tokens.add(files.added)
    tokens.types[unknown] = UNKNOWN
    add = metadata.add
    tokens.describe(add, "t5", "default", scores=True)
    add.add_add_space_prefix(spaces.prepends)
    add.add_remove_extra_whitespaces(spaces.merges)
    if charsmap:
        add.add_precompiled_charsmap(charsmap)
    describe_special(files, tokens, metadata, Around(frame_of(files)), unknown)


def _is_scored(token: object) -> bool:
    return (
        isinstance(token, list)
        and len(token) == 2
        and isinstance(token[0], str)
        and isinstance(token[1], (int, float))
        and math.isfinite(token[1])
    )


def _charsmap(files: TokenizerFiles) -> bytes:
    """Return what sentencepiece's normalizer makes of characters; nothing without one."""
    for place, step in enumerate(files.steps("normalizer")):
        if step["type"] != "Precompiled":
            continue
        if place:
            raise files.unlike(
                "normalizer", step, "not the first step, which it is to llama.cpp. Put it first"
            )
        try:
            found = base64.b64decode(step.get("precompiled_charsmap") or "", validate=True)
        except (TypeError, ValueError):
            raise files.wrong("precompiled_charsmap", "base64", step) from None
        check_charsmap(found, files.path(TOKENIZER))
        return found
    return b""


def check_charsmap(charsmap: bytes, path: str) -> None:
    """Raise where llama.cpp does not read it: a length, so many bytes, and texts."""
    if charsmap and int.from_bytes(charsmap[:4], "little") + 4 >= len(charsmap):
        raise ValueError(
            f"'{path}': precompiled_charsmap of {len(charsmap)} bytes is cut short. Take the "
            "tokenizer that came with the weights"
        )


class _Spaces:
    """What is done to spaces.

    Attributes
    ----------
    prepends : bool
        Whether one comes before each text.
    merges : bool
        Whether several become one, and those at both ends none.
    """

    def __init__(self, files: TokenizerFiles, texts: list[str], normalizer: Any) -> None:
        self._files = files
        kinds = [step["type"] for step in files.steps("normalizer")]
        runs = any(map(self._merges_runs, files.steps("normalizer")))
        words, metaspace = self._splits()
        self.merges = runs or words
        self.prepends = metaspace.scheme != "never"
        if self.merges and metaspace.scheme != "always" and (words or not self.prepends):
            raise files.unlike(
                "pre_tokenizer",
                files.tokenizer.get("pre_tokenizer"),
                "and llama.cpp, where it merges spaces, puts one before each text. No GGUF file "
                "can make up for it",
            )
        if metaspace.splits or words:
            check_words(files, (text for text in texts if SPACE * 2 not in text or not self.merges))
        check_prefix_space(files, self.prepends)
        differing = []
        if self.prepends and not self.merges:
            differing.append(AT_BEGIN)
        if not words and ("Strip" in kinds) != self.merges:
            differing.append(AT_END)
        if words and not _makes_spaces(normalizer):
            differing.append(WITH_OTHERS)
        if metaspace.scheme == "first":
            differing.append(AFTER_TOKENS)
        warn_of_spaces(files, differing)

    def _merges_runs(self, step: Mapping[str, Any]) -> bool:
        """Whether a step of the normalizer merges spaces; raise on what llama.cpp does not do."""
        if step["type"] == "Replace" and step.get("pattern") == _RUNS:
            if step.get("content") in (" ", SPACE):
                return True
        elif step["type"] in ("Precompiled", "Strip"):
            return False
        raise self._files.unlike(
            "normalizer",
            step,
            "which llama.cpp does not do to texts of such tokenizers: it does Precompiled, and "
            'Replace of " {2,}". No GGUF file can make up for it',
        )

    def _splits(self) -> tuple[bool, Metaspace]:
        """Return whether words are what is between spaces, and what is put in their place."""
        steps = self._files.steps("pre_tokenizer")
        words = len(steps) == 2 and steps[0]["type"] == "WhitespaceSplit"
        if len(steps) != 1 + words or steps[-1]["type"] != METASPACE:
            raise self._files.unlike(
                "pre_tokenizer",
                self._files.tokenizer.get("pre_tokenizer"),
                "and llama.cpp does what Metaspace does, or WhitespaceSplit and Metaspace. No GGUF "
                "file can make up for it",
            )
        return words, metaspace_of(self._files, steps[-1])


def _makes_spaces(normalizer: Any) -> bool:
    """Whether all white space becomes spaces before texts are split."""
    if normalizer is None:
        return False
    normalized = (normalizer.normalize_str(f"a{white}b") for white in _WHITE)
    return all(set(text) <= set("ab ") for text in normalized)
