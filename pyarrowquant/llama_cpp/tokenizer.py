"""The tokenizer of a folder, in the keys that llama.cpp reads it from."""

from __future__ import annotations

from pyarrowquant.errors import UsageError
from pyarrowquant.llama_cpp.chat_template import describe_chat_template
from pyarrowquant.llama_cpp.merges import MERGES, VOCABULARY
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.pre_tokenizers import NAMES
from pyarrowquant.llama_cpp.tekken import TEKKEN
from pyarrowquant.llama_cpp.tokenizer_files import SENTENCEPIECE, TOKENIZER, TokenizerFiles
from pyarrowquant.llama_cpp.vocabularies.byte_pairs import BYTES, describe_byte_pairs
from pyarrowquant.llama_cpp.vocabularies.pieces import describe_pieces
from pyarrowquant.llama_cpp.vocabularies.sentencepiece import describe_sentencepiece
from pyarrowquant.llama_cpp.vocabularies.unigram import describe_unigram
from pyarrowquant.llama_cpp.vocabularies.words import describe_words


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
    UsageError
        `pre_tokenizer` is none, or none for this tokenizer.
    ValueError
        A file is wrong, or llama.cpp knows no such tokenizer.
    FileNotFoundError
        There is no tokenizer.
    """
    if pre_tokenizer is not None and pre_tokenizer not in NAMES:
        raise UsageError(
            f"pre_tokenizer={pre_tokenizer!r} is none that llama.cpp knows: "
            f"{', '.join(sorted(NAMES))}"
        )
    if not files.has(TOKENIZER) and not files.has(SENTENCEPIECE):
        raise FileNotFoundError(
            f"'{files.folder}' has none of {TOKENIZER}, {TEKKEN}, {SENTENCEPIECE}, and "
            f"{VOCABULARY} with {MERGES}, and llama.cpp needs a tokenizer. Take the ones that came "
            "with the weights"
        )
    if _is_of_bytes(files):
        describe_byte_pairs(files, rows, metadata, pre_tokenizer)
    elif pre_tokenizer is not None:
        path = files.path(TOKENIZER if files.has(TOKENIZER) else SENTENCEPIECE)
        raise UsageError(
            f"pre_tokenizer={pre_tokenizer!r} is for BPE of bytes, which the tokenizer of '{path}' "
            "is not: llama.cpp knows how it splits texts. Leave it out"
        )
    elif files.has(TOKENIZER):
        _describe_others(files, rows, metadata)
    else:
        describe_sentencepiece(files, rows, metadata)
    describe_chat_template(files, metadata)


def _is_of_bytes(files: TokenizerFiles) -> bool:
    return (
        files.has(TOKENIZER)
        and _kind(files) == "BPE"
        and any(step["type"] == BYTES for step in files.steps("pre_tokenizer"))
    )


def _kind(files: TokenizerFiles) -> object:
    old = "BPE" if "merges" in files.model else None  # as old files have it
    return files.model.get("type", old)


def _describe_others(files: TokenizerFiles, rows: int, metadata: Metadata) -> None:
    kind = _kind(files)
    if kind == "Unigram":
        describe_unigram(files, rows, metadata)
    elif kind == "WordPiece":
        describe_words(files, rows, metadata)
    elif kind != "BPE":
        raise files.wrong("model.type", "BPE, Unigram or WordPiece", kind)
    elif files.model.get("byte_fallback") is True:
        describe_pieces(files, rows, metadata)
    else:
        raise files.unlike(
            "pre_tokenizer",
            files.tokenizer.get("pre_tokenizer"),
            "without ByteLevel, and model.byte_fallback is not true: llama.cpp has no BPE but of "
            "bytes, and of letters with bytes for the others. No GGUF file can make up for it",
        )
