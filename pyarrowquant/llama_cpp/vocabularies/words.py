"""WordPiece, the tokens of BERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.post_processor import frame_of
from pyarrowquant.llama_cpp.special_tokens import Around, describe_special
from pyarrowquant.llama_cpp.tokenizer_files import TOKENIZER, TokenizerFiles
from pyarrowquant.llama_cpp.tokens import NORMAL, SPACE, Tokens
from pyarrowquant.llama_cpp.vocabularies.tokenizer_json import load

_NORMALIZER = "BertNormalizer"
_PRE_TOKENIZER = "BertPreTokenizer"


def describe_words(files: TokenizerFiles, rows: int, metadata: Metadata) -> None:
    """Add the keys of WordPiece; llama.cpp wants words with a space, and the rest without ##."""
    tokens = Tokens(rows)
    tokens.fill(files.vocabulary.items(), files.path(TOKENIZER))
    prefix = files.model.get("continuing_subword_prefix", "##")
    if not isinstance(prefix, str) or not prefix:
        raise files.wrong("model.continuing_subword_prefix", "a text", prefix)
    unknown = files.model.get("unk_token")
    if not isinstance(unknown, str) or unknown not in files.vocabulary:
        raise files.wrong("model.unk_token", "a token of model.vocab", unknown)
    normalizer = _normalizer(files)
    load(files)
    tokens.add(files.added)
    for text, number in tokens.numbers.items():
        if tokens.types[number] == NORMAL:
            rest = text.removeprefix(prefix)
            tokens.rename(number, rest if rest != text else SPACE + text)
    tokens.describe(metadata.add, "bert", "default", scores=False)
    lowers = normalizer.get("lowercase", True) is True
    metadata.add.add_bool("tokenizer.ggml.normalizer.lowercase", lowers)
    strips = normalizer.get("strip_accents")
    if strips is not None and strips != lowers:  # else llama.cpp does as it lowers
        metadata.add.add_bool("tokenizer.ggml.normalizer.strip_accents", strips is True)
    around = Around(frame_of(files), always=True)
    describe_special(files, tokens, metadata, around, tokens.numbers[unknown])


def _normalizer(files: TokenizerFiles) -> Mapping[str, Any]:
    """Return what BERT's normalizer does; raise on what llama.cpp does not do."""
    steps = files.steps("normalizer")
    if [step["type"] for step in steps] != [_NORMALIZER]:
        raise files.unlike(
            "normalizer",
            files.tokenizer.get("normalizer"),
            f"and llama.cpp does what {_NORMALIZER} does to texts of such tokenizers. No GGUF file "
            "can make up for it",
        )
    for key, texts in {
        "clean_text": "control characters",
        "handle_chinese_chars": "Chinese",
    }.items():
        if steps[0].get(key, True) is not True:
            raise files.unlike(
                f"normalizer.{key}",
                steps[0][key],
                f"and llama.cpp does it for all such tokenizers. Say true if texts have no {texts}",
            )
    splits = files.steps("pre_tokenizer")
    if [step["type"] for step in splits] != [_PRE_TOKENIZER]:
        raise files.unlike(
            "pre_tokenizer",
            files.tokenizer.get("pre_tokenizer"),
            f"and llama.cpp splits texts of such tokenizers as {_PRE_TOKENIZER} does. No GGUF file "
            "can make up for it",
        )
    return steps[0]
