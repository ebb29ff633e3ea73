"""What tokenizers with a letter for spaces do to the spaces of texts."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyarrowquant._core.quoting import enumerated, quoted
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.tokenizer_files import TOKENIZER, TokenizerFiles
from pyarrowquant.llama_cpp.tokens import SPACE

METASPACE = "Metaspace"
AT_BEGIN = "texts that begin with a space (also after an added token)"
ONLY_SPACES = "texts of spaces alone"
AT_END = "texts that end with a space"
WITH_OTHERS = "texts with tabs, newlines and the like"
AFTER_FOUND = "what comes after a token that the user defined"
AFTER_TOKENS = "what comes after an added token within a text"


@dataclass(frozen=True)
class Metaspace:
    """A step that puts a letter in the place of spaces, and one before a text.

    Attributes
    ----------
    scheme : str
        Before which texts: "always", "first" (but not after added tokens) or "never".
    splits : bool
        Whether each such letter begins a word.
    """

    scheme: str
    splits: bool


def metaspace_of(files: TokenizerFiles, step: Mapping[str, Any]) -> Metaspace:
    """Return a Metaspace of tokenizer.json; one with another letter is an error."""
    if step.get("replacement", SPACE) != SPACE:
        raise files.unlike(
            "pre_tokenizer",
            step,
            f"and llama.cpp has {SPACE} in the place of spaces. No GGUF file can make up for it",
        )
    old = "never" if step.get("add_prefix_space") is False else "always"  # as old files have it
    scheme = step.get("prepend_scheme", old)
    if scheme not in ("always", "first", "never"):
        raise files.wrong("pre_tokenizer.prepend_scheme", "always, first or never", scheme)
    return Metaspace(scheme, step.get("split", True) is True)


def replaces_spaces(step: Mapping[str, Any]) -> bool:
    """Whether a step of a normalizer puts the letter in the place of spaces."""
    return (
        step["type"] == "Replace"
        and step.get("pattern") == {"String": " "}
        and step.get("content") == SPACE
    )


def check_words(files: TokenizerFiles, texts: Iterable[str]) -> None:
    """Raise where a token goes across words, that llama.cpp finds and this tokenizer does not."""
    for text in texts:
        if SPACE in text[1:]:
            raise ValueError(
                f"'{files.path(TOKENIZER)}' splits texts at spaces, so that its token "
                f"{quoted(text)} is never found, which llama.cpp finds. Say a Metaspace with "
                '"split": false if it may be'
            )


def warn_of_spaces(files: TokenizerFiles, differing: Sequence[str], name: str = TOKENIZER) -> None:
    """Say which texts get other tokens from llama.cpp, which always does the same with spaces."""
    if differing:
        warnings.warn(
            f"'{files.path(name)}' treats spaces otherwise than llama.cpp can: other tokens "
            f"are found in {enumerated(differing)}",
            UserWarning,
            stacklevel=users_level(),
        )
