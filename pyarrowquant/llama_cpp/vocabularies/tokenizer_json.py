"""What the kinds of tokenizers in tokenizer.json have in common."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.tokenizer_files import (
    TOKENIZER,
    TOKENIZER_CONFIG,
    AddedToken,
    TokenizerFiles,
)
from pyarrowquant.reading.tokenizer import read_tokenizer


def import_tokenizers() -> Any:
    """Return the package tokenizers; without it, the error says how to get it."""
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            "Finding out what a tokenizer does to texts needs tokenizers: "
            "pip install 'pyarrowquant[gguf]'"
        ) from None
    return tokenizers


def load(files: TokenizerFiles) -> Any:
    """Return the tokenizer as the package tokenizers has it.

    An added token that is found in texts after they have been changed is an error.
    """
    added = files.added
    tokenizers = import_tokenizers()
    tokenizer = read_tokenizer(tokenizers, files.read(TOKENIZER), files.path(TOKENIZER))
    _check_normalized(added, tokenizer.normalizer)
    return tokenizer


def _check_normalized(added: Sequence[AddedToken], normalizer: Any) -> None:
    """Raise where a token is found in texts under another text; control tokens rarely are so."""
    others = {}
    for token in added if normalizer is not None else []:
        changed = normalizer.normalize_str(token.content)
        if not token.normalized or changed == token.content:
            continue
        if not token.special:
            raise ValueError(
                f"{token.said_in} has {quoted(token.content)} with normalized true, so that it is "
                f"found as {quoted(changed)} in texts that the normalizer has changed, which "
                'llama.cpp does not do. Say "normalized": false if it is found as it is'
            )
        others[token.content] = f"{token.content!r} as {changed!r}"
    if others:
        warnings.warn(
            f"{added[0].said_in} has tokens with normalized true, which are found in texts that "
            f"the normalizer has changed: {first_few(list(others.values()))}. llama.cpp finds them "
            "wherever they are",
            UserWarning,
            stacklevel=users_level(),
        )


def check_plain_merges(files: TokenizerFiles) -> None:
    """Raise where merges of BPE are not all that makes words of letters."""
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if found := files.model.get(key):
            raise files.unlike(
                f"model.{key}",
                found,
                "which llama.cpp does not have. No GGUF file can make up for it",
            )
    if found := files.model.get("dropout"):
        raise files.unlike(
            "model.dropout",
            found,
            "by which tokenizers leaves merges out at random, as llama.cpp does not. Say null",
        )


def check_prefix_space(files: TokenizerFiles, puts: bool) -> None:
    """Raise where tokenizer_config.json contradicts tokenizer.json."""
    said = files.switch("add_prefix_space")
    if said is not None and said != puts:
        raise files.unlike(
            "add_prefix_space",
            said,
            f"and {TOKENIZER} beside it puts {'a' if puts else 'no'} space before texts. Make them "
            "say the same",
            TOKENIZER_CONFIG,
        )
