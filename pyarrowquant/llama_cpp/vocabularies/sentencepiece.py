"""A tokenizer.model, as sentencepiece writes them."""

from __future__ import annotations

import struct

from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.sentencepiece_model import (
    BPE,
    MODEL_TYPES,
    UNIGRAM,
    SentencePieceModel,
    parse_model,
)
from pyarrowquant.llama_cpp.special_tokens import Around, describe_special
from pyarrowquant.llama_cpp.tokenizer_files import SENTENCEPIECE, TokenizerFiles
from pyarrowquant.llama_cpp.tokens import BYTE, CONTROL, SPACE, UNKNOWN, USER_DEFINED, Tokens
from pyarrowquant.llama_cpp.vocabularies.pieces import check_byte_pieces
from pyarrowquant.llama_cpp.vocabularies.spaces import AFTER_FOUND, ONLY_SPACES, warn_of_spaces
from pyarrowquant.llama_cpp.vocabularies.unigram import check_charsmap

_WAY_OUT = "No GGUF file can make up for it"


def describe_sentencepiece(files: TokenizerFiles, rows: int, metadata: Metadata) -> None:
    """Add the keys of a tokenizer.model, and of the tokens that other files add to it."""
    path = files.path(SENTENCEPIECE)
    try:
        model = parse_model(files.read(SENTENCEPIECE))
    except (ValueError, struct.error) as error:
        raise ValueError(f"'{path}' is no model of sentencepiece: {error}") from None
    _check_model(files, model)
    tokens = Tokens(rows)
    tokens.fill(((piece.text, number) for number, piece in enumerate(model.pieces)), path)
    for number, piece in enumerate(model.pieces):
        tokens.scores[number], tokens.types[number] = piece.score, piece.kind
    unknown = next((n for n, kind in enumerate(tokens.types) if kind == UNKNOWN), None)
    if unknown is None:
        raise ValueError(f"'{path}' has no piece for what is unknown. Take the one of the weights")
    tokens.add(files.added, replaces=True)
    tokens.types[unknown] = UNKNOWN
    for text in files.additional:
        if text in tokens.numbers:
            tokens.types[tokens.numbers[text]] = CONTROL
    for number, piece in enumerate(model.pieces):
        if tokens.types[number] == USER_DEFINED and tokens.texts[number] == piece.text:
            tokens.rename(number, piece.text.replace(SPACE, " "))  # as texts have it
    prepends = model.add_dummy_prefix and files.switch("add_prefix_space") is not False
    differing = []
    if prepends and USER_DEFINED in {piece.kind for piece in model.pieces}:
        differing.append(AFTER_FOUND)
    if prepends and model.model_type == UNIGRAM and not model.remove_extra_whitespaces:
        differing.append(ONLY_SPACES)
    warn_of_spaces(files, differing, SENTENCEPIECE)
    add = metadata.add
    tokens.describe(add, "llama" if model.model_type == BPE else "t5", "default", scores=True)
    add.add_add_space_prefix(prepends)
    if model.model_type == UNIGRAM:
        add.add_remove_extra_whitespaces(model.remove_extra_whitespaces)
        if model.charsmap:
            add.add_precompiled_charsmap(model.charsmap)
    describe_special(files, tokens, metadata, Around(None, begins=True), unknown)


def _check_model(files: TokenizerFiles, model: SentencePieceModel) -> None:
    """Raise on what llama.cpp does not do."""
    path = files.path(SENTENCEPIECE)
    if model.model_type not in (BPE, UNIGRAM):
        found = MODEL_TYPES.get(model.model_type, str(model.model_type))
        raise _unlike(files, "trainer_spec.model_type", found, "and llama.cpp has bpe and unigram")
    if model.treat_whitespace_as_suffix:
        key = "trainer_spec.treat_whitespace_as_suffix"
        raise _unlike(files, key, True, "and llama.cpp puts spaces before words")
    if not model.escape_whitespaces:
        key = "normalizer_spec.escape_whitespaces"
        raise _unlike(files, key, False, f"and llama.cpp puts {SPACE} in the place of spaces")
    bytes_ = {piece.text: n for n, piece in enumerate(model.pieces) if piece.kind == BYTE}
    merges_spaces = model.remove_extra_whitespaces
    if model.model_type == BPE:
        check_byte_pieces(bytes_, path)
        if model.charsmap:
            raise _unlike(
                files,
                "normalizer_spec.precompiled_charsmap",
                f"of {len(model.charsmap)} bytes",
                "by which letters are changed first, as llama.cpp does not for bpe",
            )
        if merges_spaces:
            key = "normalizer_spec.remove_extra_whitespaces"
            raise _unlike(files, key, True, "and llama.cpp keeps all spaces for bpe")
        return
    check_charsmap(model.charsmap, path)
    if bytes_:
        key = "trainer_spec.byte_fallback"
        raise _unlike(files, key, True, "and llama.cpp has no bytes of letters for unigram")
    if merges_spaces and not model.add_dummy_prefix:
        key = "normalizer_spec.add_dummy_prefix"
        why = "and llama.cpp, where it merges spaces, puts one before each text"
        raise _unlike(files, key, False, why)


def _unlike(files: TokenizerFiles, key: str, found: object, why: str) -> ValueError:
    return files.unlike(key, found, f"{why}. {_WAY_OUT}", SENTENCEPIECE)
