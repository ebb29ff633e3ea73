"""Sentencepiece's tokens as BPE of tokenizer.json: llama.cpp merges them by scores."""

from __future__ import annotations

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.post_processor import frame_of
from pyarrowquant.llama_cpp.special_tokens import Around, describe_special
from pyarrowquant.llama_cpp.tokenizer_files import TOKENIZER, TokenizerFiles
from pyarrowquant.llama_cpp.tokens import BYTE, NORMAL, SPACE, UNKNOWN, Tokens
from pyarrowquant.llama_cpp.vocabularies.spaces import (
    AFTER_TOKENS,
    AT_BEGIN,
    METASPACE,
    check_words,
    metaspace_of,
    replaces_spaces,
    warn_of_spaces,
)
from pyarrowquant.llama_cpp.vocabularies.tokenizer_json import (
    check_plain_merges,
    check_prefix_space,
    load,
)

BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def describe_pieces(files: TokenizerFiles, rows: int, metadata: Metadata) -> None:
    """Add the keys of a tokenizer that transformers made of sentencepiece's."""
    tokens = Tokens(rows)
    tokens.fill(files.vocabulary.items(), files.path(TOKENIZER))
    check_plain_merges(files)
    if files.model.get("ignore_merges") is True:
        raise files.unlike(
            "model.ignore_merges",
            True,
            "and llama.cpp merges all words of such tokenizers. Say false if merges make all "
            "tokens",
        )
    check_byte_pieces(files.vocabulary, files.path(TOKENIZER))
    prepends = _prepends_space(files)
    load(files)
    _set_scores(files, tokens)
    unknown = files.model.get("unk_token")
    number = files.vocabulary.get(unknown) if isinstance(unknown, str) else None
    tokens.add(files.added)
    for piece in BYTE_PIECES:
        tokens.types[tokens.numbers[piece]] = BYTE
    if number is not None:
        tokens.types[number] = UNKNOWN
    tokens.describe(metadata.add, "llama", "default", scores=True)
    metadata.add.add_add_space_prefix(prepends)
    describe_special(files, tokens, metadata, Around(frame_of(files)), number)


def check_byte_pieces(vocabulary: dict[str, int], path: str) -> None:
    """Raise where bytes have no tokens, without which llama.cpp ends the process."""
    missing = [piece for piece in BYTE_PIECES if piece not in vocabulary]
    if missing:
        raise ValueError(
            f"'{path}' has no tokens for some bytes: {first_few(missing)}. llama.cpp's process "
            "ends at a letter that has no token, if its bytes have none. No GGUF file can make up "
            "for it"
        )


def _prepends_space(files: TokenizerFiles) -> bool:
    """Return whether a space comes before a text; raise on what llama.cpp does not do."""
    prepends = replaces = False
    for step in files.steps("normalizer"):
        if step["type"] == "Prepend" and step.get("prepend") == SPACE and not prepends:
            prepends = True
        elif replaces_spaces(step):
            replaces = True
        elif step["type"] != "NFC":
            raise files.unlike(
                "normalizer",
                step,
                f"and llama.cpp puts {SPACE} in the place of spaces and before texts of such "
                "tokenizers, and does no more. No GGUF file can make up for it",
            )
    differing = []
    for step in files.steps("pre_tokenizer"):
        if step["type"] == METASPACE:
            metaspace = metaspace_of(files, step)
            if metaspace.splits:
                check_words(files, files.vocabulary)
            if metaspace.scheme != "never" and not prepends:
                prepends = True
                differing = [AT_BEGIN, *([AFTER_TOKENS] if metaspace.scheme == "first" else [])]
            replaces = True
        elif not (
            replaces and step["type"] == "Split" and step.get("pattern") == {"String": " "}
        ):  # there are no spaces by then
            raise files.unlike(
                "pre_tokenizer",
                step,
                "and llama.cpp does not split texts of such tokenizers. No GGUF file can make up "
                "for it",
            )
    if not replaces:
        raise files.unlike(
            "normalizer",
            files.tokenizer.get("normalizer"),
            f"and llama.cpp puts {SPACE} in the place of spaces for such tokenizers. No GGUF file "
            "can make up for it",
        )
    check_prefix_space(files, prepends)
    warn_of_spaces(files, differing)
    return prepends


def _set_scores(files: TokenizerFiles, tokens: Tokens) -> None:
    """Score tokens so that what comes of the first merge scores highest.

    llama.cpp merges what becomes a token, best scores first, so that merges must be all of those,
    and in the order of tokens.
    """
    ranks: dict[str, list[int]] = {}
    for rank, (first, second) in enumerate(files.merges):
        ranks.setdefault(first + second, []).append(rank)
    _check_all_merge(files, tokens)
    end = -1
    for text, ranked in ranks.items():
        if ranked[0] < end:
            pair = files.merges[end]
            raise files.unlike(
                f"model.merges[{end}]",
                " ".join(pair),
                f"behind a merge of {quoted(text)}, while others of {quoted(''.join(pair))} come "
                "before it. llama.cpp merges by tokens, not by pairs, and no GGUF file can make up "
                "for it",
            )
        end = ranked[-1]
    for text, number in tokens.numbers.items():
        rank = ranks[text][0] if text in ranks else len(files.merges) + number
        tokens.scores[number] = -float(rank)
        tokens.types[number] = NORMAL


def _check_all_merge(files: TokenizerFiles, tokens: Tokens) -> None:
    merges = set(files.merges)
    found_whole = {token.content for token in files.added if SPACE not in token.content}
    for text in tokens.numbers:
        if text in found_whole:
            continue
        for cut in range(1, len(text)):
            first, second = text[:cut], text[cut:]
            if (
                first in tokens.numbers
                and second in tokens.numbers
                and (first, second) not in merges
            ):
                raise files.unlike(
                    "model.merges",
                    f"{len(merges)} pairs",
                    f"without {quoted(first)} and {quoted(second)}, which llama.cpp merges to "
                    f"the token {quoted(text)} all the same. No GGUF file can make up for it",
                )
