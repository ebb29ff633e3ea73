"""The tokenizer of a folder, in the keys that llama.cpp reads it from."""

from __future__ import annotations

import base64
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.pre_tokenizers import NAMES, pre_tokenizer_of
from pyarrowquant.llama_cpp.quiet import quiet
from pyarrowquant.llama_cpp.tokenizer_files import (
    SENTENCEPIECE,
    TOKENIZER,
    TOKENIZER_CONFIG,
    TokenizerFiles,
)
from pyarrowquant.llama_cpp.tokens import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Tokens,
)
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.gguf import import_gguf

_SPACE_IN_MERGES = chr(ord(" ") + 256)
# What llama.cpp does itself, or does without, as it makes no difference to most texts.
_NORMALIZERS = frozenset({"NFC"})
_NORMALIZERS_OF_PIECES = frozenset({"Prepend", "Replace"})
_NORMALIZERS_OF_UNIGRAM = frozenset({"Precompiled", "Replace", "Strip"})


def describe_tokenizer(
    files: TokenizerFiles, rows: int, metadata: Metadata, pre_tokenizer: str | None
) -> None:
    """Add the keys of a tokenizer.

    Parameters
    ----------
    files : TokenizerFiles
    rows : int
        Of the embeddings.
    metadata : Metadata
    pre_tokenizer : str or None
        What llama.cpp calls the way that texts are split; None to find it.

    Raises
    ------
    ValueError
        A file is wrong, or llama.cpp knows no such tokenizer.
    FileNotFoundError
        There is no tokenizer.
    """
    if pre_tokenizer is not None and pre_tokenizer not in NAMES:
        raise ValueError(
            f"pre_tokenizer {pre_tokenizer!r} is none that llama.cpp knows: "
            f"{', '.join(sorted(NAMES))}"
        )
    if files.has(TOKENIZER):
        _describe_json(files, rows, metadata, pre_tokenizer)
    elif files.has(SENTENCEPIECE):
        _describe_sentencepiece(files, rows, metadata)
    else:
        raise FileNotFoundError(
            f"'{files.folder}' has neither {TOKENIZER} nor {SENTENCEPIECE}, and llama.cpp needs a "
            "tokenizer. Take the ones that came with the weights"
        )


def _describe_json(
    files: TokenizerFiles, rows: int, metadata: Metadata, pre_tokenizer: str | None
) -> None:
    kind = files.model.get("type")
    if kind is None and "merges" in files.model:
        kind = "BPE"  # as old files have it
    tokens = Tokens.unused(rows)
    if kind == "Unigram":
        _describe_unigram(files, tokens, metadata)
        return
    tokens.fill(files.vocabulary.items(), files.path(TOKENIZER))
    if kind == "BPE" and files.model.get("byte_fallback") is True:
        _describe_pieces(files, tokens, metadata)
    elif kind == "BPE":
        _describe_bpe(files, tokens, metadata, pre_tokenizer)
    elif kind == "WordPiece":
        _describe_words(files, tokens, metadata)
    else:
        raise files.wrong("model.type", "BPE, Unigram or WordPiece", kind)


def _describe_bpe(
    files: TokenizerFiles, tokens: Tokens, metadata: Metadata, pre_tokenizer: str | None
) -> None:
    """Tokens of bytes, as GPT-2 had them first."""
    _check_normalizer(files, _NORMALIZERS)
    tokens.add(files.added, files.path(TOKENIZER))
    merges = [
        " ".join(part.replace(" ", _SPACE_IN_MERGES) for part in pair) for pair in files.merges
    ]
    if pre_tokenizer is None:
        pre_tokenizer = _found(files)
    tokens.describe(metadata.add, "gpt2", pre_tokenizer, scores=False)
    metadata.add.add_token_merges(merges)
    _describe_special(files, tokens, metadata, begins=False)


def _check_normalizer(files: TokenizerFiles, known: frozenset[str]) -> None:
    """Raise where texts are changed by what llama.cpp does not do for such a tokenizer."""
    others = files.kinds("normalizer") - known
    if others:
        raise ValueError(
            f"'{files.path(TOKENIZER)}' changes texts by {', '.join(sorted(others))} first, which "
            "llama.cpp does not do for such tokenizers. No GGUF file can make up for it"
        )


def _found(files: TokenizerFiles) -> str:
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            "Finding out how a tokenizer splits texts needs tokenizers: "
            "pip install pyarrowquant[gguf]"
        ) from None
    path = files.path(TOKENIZER)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(files.read(TOKENIZER).decode())
    except Exception as error:  # it raises nothing narrower
        raise ValueError(f"'{path}' is none that tokenizers reads: {error}") from None
    name = None
    if tokenizer.pre_tokenizer is not None:
        name = pre_tokenizer_of(tokenizer, files.model.get("ignore_merges") is True)
    if name is None:
        raise ValueError(
            f"'{path}' splits texts in a way that is none of those known by name here. Say what "
            "llama.cpp calls it by pre_tokenizer (--pre-tokenizer on the command line): one of "
            f"{', '.join(sorted(NAMES))}"
        )
    return name


def _describe_pieces(files: TokenizerFiles, tokens: Tokens, metadata: Metadata) -> None:
    """Sentencepiece's tokens, told by merges: what comes of the first of them scores highest."""
    _check_normalizer(files, _NORMALIZERS_OF_PIECES)
    rank: dict[str, int] = {}
    for number, (first, second) in enumerate(files.merges):
        rank.setdefault(first + second, number)
    for number, (text, kind) in enumerate(zip(tokens.texts, tokens.types, strict=True)):
        if kind == NORMAL:
            score = -float(rank[text]) if text in rank else -float(len(rank) + number)
            tokens.set(number, text, BYTE if _is_byte(text) else NORMAL, score)
    if isinstance(unknown := files.model.get("unk_token"), str) and unknown in files.vocabulary:
        tokens.types[files.vocabulary[unknown]] = UNKNOWN
    unknowns = [number for number, kind in enumerate(tokens.types) if kind == UNKNOWN]
    tokens.add(files.added, files.path(TOKENIZER))
    for number in unknowns:
        tokens.types[number] = UNKNOWN
    tokens.describe(metadata.add, "llama", "default", scores=True)
    metadata.add.add_add_space_prefix(_prepends_space(files))
    _describe_special(files, tokens, metadata, begins=False)


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _prepends_space(files: TokenizerFiles) -> bool:
    """Whether a space comes before a text."""
    if isinstance(said := files.config.get("add_prefix_space"), bool):
        return said
    pre_tokenizer = files.tokenizer.get("pre_tokenizer")
    if isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Metaspace":
        scheme = pre_tokenizer.get("prepend_scheme", pre_tokenizer.get("add_prefix_space"))
        return scheme in ("always", "first", True)
    return "Prepend" in files.kinds("normalizer")


def _describe_words(files: TokenizerFiles, tokens: Tokens, metadata: Metadata) -> None:
    """WordPiece, of which llama.cpp wants words to begin with a space, and the rest without ##."""
    tokens.add(files.added, files.path(TOKENIZER))
    prefix = files.model.get("continuing_subword_prefix", "##")
    if not isinstance(prefix, str):
        raise files.wrong("model.continuing_subword_prefix", "a text", prefix)
    for number, text in enumerate(tokens.texts):
        if tokens.types[number] != CONTROL:
            rest = text.removeprefix(prefix)
            tokens.texts[number] = rest if rest != text else SPACE + text
    tokens.describe(metadata.add, "bert", "default", scores=False)
    metadata.add.add_bool("tokenizer.ggml.normalizer.lowercase", _lowers(files))
    _describe_special(files, tokens, metadata)


def _lowers(files: TokenizerFiles) -> bool:
    normalizer = files.tokenizer.get("normalizer")
    return isinstance(normalizer, dict) and normalizer.get("lowercase") is True


def _describe_unigram(files: TokenizerFiles, tokens: Tokens, metadata: Metadata) -> None:
    """Sentencepiece's tokens with their own scores."""
    _check_normalizer(files, _NORMALIZERS_OF_UNIGRAM)
    path = files.path(TOKENIZER)
    vocabulary = files.model.get("vocab")
    if not isinstance(vocabulary, list) or not all(map(_is_scored, vocabulary)):
        raise files.wrong("model.vocab", "a list of tokens with scores", vocabulary)
    tokens.fill(((text, number) for number, (text, _) in enumerate(vocabulary)), path)
    for number, (_, score) in enumerate(vocabulary):
        tokens.scores[number] = float(score)
    unknown = files.model.get("unk_id")
    for token in files.added:
        if token.id < len(tokens):
            kind = CONTROL if token.special else USER_DEFINED
            tokens.set(token.id, token.content, kind, tokens.scores[token.id])
    if type(unknown) is int and 0 <= unknown < len(tokens):
        tokens.types[unknown] = UNKNOWN
    add = metadata.add
    tokens.describe(add, "t5", "default", scores=True)
    add.add_add_space_prefix(True)
    add.add_remove_extra_whitespaces(True)
    if charsmap := _charsmap(files):
        add.add_precompiled_charsmap(charsmap)
    _describe_special(files, tokens, metadata)


def _is_scored(token: object) -> bool:
    return (
        isinstance(token, list)
        and len(token) == 2
        and isinstance(token[0], str)
        and isinstance(token[1], (int, float))
    )


def _charsmap(files: TokenizerFiles) -> bytes | None:
    """Return what sentencepiece's normalizer makes of characters."""
    parts: list[Any] = [files.tokenizer.get("normalizer")]
    while parts:
        part = parts.pop()
        if not isinstance(part, dict):
            continue
        if part.get("type") == "Precompiled":
            try:
                return base64.b64decode(part["precompiled_charsmap"], validate=True)
            except (KeyError, TypeError, ValueError):
                raise files.wrong("precompiled_charsmap", "base64", part) from None
        parts += part.get("normalizers") or []
    return None


def _describe_sentencepiece(files: TokenizerFiles, rows: int, metadata: Metadata) -> None:
    """A tokenizer.model, as sentencepiece writes them."""
    try:
        import sentencepiece
    except ImportError:
        raise ImportError(
            f"Reading {SENTENCEPIECE} needs sentencepiece: pip install pyarrowquant[gguf]"
        ) from None
    path = files.path(SENTENCEPIECE)
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(files.read(SENTENCEPIECE))
    except RuntimeError as error:
        raise ValueError(f"'{path}' is none that sentencepiece reads: {error}") from None
    tokens = Tokens.unused(rows)
    count = processor.vocab_size()
    tokens.fill(((processor.IdToPiece(number), number) for number in range(count)), path)
    for number in range(count):
        tokens.scores[number] = processor.GetScore(number)
        tokens.types[number] = _type_of_piece(processor, number)
    tokens.describe(metadata.add, "llama", "default", scores=True)
    prefix = files.config.get("add_prefix_space")
    metadata.add.add_add_space_prefix(prefix if isinstance(prefix, bool) else True)
    _describe_special(files, tokens, metadata)


def _type_of_piece(processor: Any, number: int) -> int:
    if processor.IsUnknown(number):
        return UNKNOWN
    if processor.IsControl(number):
        return CONTROL
    if processor.IsUnused(number):
        return UNUSED
    return BYTE if processor.IsByte(number) else NORMAL


def _describe_special(
    files: TokenizerFiles, tokens: Tokens, metadata: Metadata, begins: bool | None = None
) -> None:
    """Add the numbers of special tokens, which of them texts begin and end with, and the template.

    gguf finds them in tokenizer.json, tokenizer_config.json and config.json.

    Parameters
    ----------
    begins : bool or None
        Whether texts begin with a token where no file says so; None for what llama.cpp assumes.
    """
    _check_special(files, tokens)
    gguf = import_gguf("Writing")
    try:
        with quiet():
            special = gguf.SpecialVocab(files.folder.path, n_vocab=len(tokens))
            if begins is not None:  # what llama.cpp assumes depends on the pre-tokenizer
                special.add_special_token.setdefault("bos", begins)
            special.add_to_gguf(metadata.add, quiet=True)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"'{files.folder}': gguf cannot read the special tokens and templates of its "
            f"{TOKENIZER_CONFIG}, {TOKENIZER} and {CONFIG}: {quoted(str(error))}"
        ) from None
    metadata.drop_unwritable("tokenizer.chat_template")


def _check_special(files: TokenizerFiles, tokens: Tokens) -> None:
    """Raise where texts begin or end with what is no token."""
    for key in ("bos_token", "eos_token"):
        said = files.config.get(key)
        text = said.get("content") if isinstance(said, dict) else said
        if text is None:
            continue
        if text not in tokens.texts:
            raise ValueError(
                f"'{files.path(TOKENIZER_CONFIG)}' has {key} {quoted(text)}, which is no token of "
                "the tokenizer beside it. Take both from where the weights came from"
            )
