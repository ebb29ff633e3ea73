"""Tokens with a part of their own: what texts begin and end with, and where they stop."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.post_processor import Frame
from pyarrowquant.llama_cpp.tokenizer_files import TOKENIZER_CONFIG, TokenizerFiles
from pyarrowquant.llama_cpp.tokens import Tokens

# The texts of tokens at which llama.cpp stops by itself.
_ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "[e~[",
)
_WORDS = {"bos": "before", "eos": "after"}


@dataclass(frozen=True)
class Around:
    """What a kind of tokenizers puts around texts.

    Attributes
    ----------
    frame : Frame or None
        What tokenizer.json says; None where it does not.
    begins : bool
        Whether texts begin with a token where no file says it.
    always : bool
        Whether llama.cpp puts one token before and one after each text, whatever is said.
    """

    frame: Frame | None
    begins: bool = False
    always: bool = False


@dataclass(frozen=True)
class _Side:
    number: int | None
    puts: bool


def describe_special(
    files: TokenizerFiles,
    tokens: Tokens,
    metadata: Metadata,
    around: Around,
    unknown: int | None = None,
) -> None:
    """Add the numbers of special tokens, and which of them texts begin and end with.

    Parameters
    ----------
    unknown : int or None
        The token of what is none; None for what the configs say.
    """
    _check_additional(files, tokens)
    frame = around.frame or Frame()
    if around.always and not len(frame.before) == len(frame.after) == 1:
        raise files.unlike(
            "post_processor",
            files.tokenizer.get("post_processor"),
            "and llama.cpp puts one token before and one after each text of such tokenizers. Say "
            "a TemplateProcessing that does the same, such as [CLS] $A [SEP]",
        )
    _check_rows(files, tokens, (*frame.before, *frame.after, *frame.between))
    begin = _side(files, tokens, "bos", frame.before, around)
    end = _side(files, tokens, "eos", frame.after, around)
    add = metadata.add
    if begin.number is not None:
        add.add_bos_token_id(begin.number)
    _describe_ends(files, tokens, metadata, end.number)
    separates = len(frame.between) > len(frame.after)
    separator = frame.after[0] if around.always else _number(files, tokens, "sep")
    numbers = {
        add.add_unk_token_id: _number(files, tokens, "unk") if unknown is None else unknown,
        add.add_sep_token_id: frame.between[-1] if separates else separator,
        add.add_pad_token_id: _number(files, tokens, "pad"),
        add.add_mask_token_id: _number(files, tokens, "mask"),
    }
    for write, number in numbers.items():
        if number is not None:
            write(number)
    add.add_add_bos_token(begin.puts)
    add.add_add_eos_token(end.puts)
    add.add_add_sep_token(separates)


def _side(
    files: TokenizerFiles, tokens: Tokens, key: str, framed: tuple[int, ...], around: Around
) -> _Side:
    """Return the token that texts begin or end with, and whether llama.cpp puts it there."""
    named = _number(files, tokens, key)
    if around.always:
        return _Side(framed[0], True)
    switch = f"add_{key}_token"
    said = files.switch(switch)
    if said is None and len(framed) > 1:
        texts = [repr(tokens.texts[number]) for number in framed]
        _warn(
            f"'{files.folder}': its tokenizer puts {first_few(texts)} {_WORDS[key]} each text, and "
            "llama.cpp at most one token, so it puts none there. Write them into prompts"
        )
        return _Side(named, False)
    if said is not None and around.frame is not None and said != bool(framed):
        _warn(
            f"'{files.path(TOKENIZER_CONFIG)}' says {switch} {str(said).lower()}, which the "
            "post_processor of tokenizer.json contradicts. The first one counts, as for "
            "transformers"
        )
    if said is None and framed:
        return _Side(framed[0], True)
    puts = around.begins and key == "bos" and around.frame is None if said is None else said
    if named is None and framed:
        named = framed[0]
    if said and files.named(f"{key}_token") is None:
        raise ValueError(
            f"'{files.path(TOKENIZER_CONFIG)}' says {switch} true, and no file says which token "
            f"that is. Say {key}_token beside it"
        )
    return _Side(named, puts and named is not None)


def _describe_ends(
    files: TokenizerFiles, tokens: Tokens, metadata: Metadata, last: int | None
) -> None:
    """Add the tokens at which a model stops."""
    add = metadata.add
    said = _checked_numbers(files, tokens, "eos")
    named = _number(files, tokens, "eos")
    ends = [number for number in dict.fromkeys([last, named, *said]) if number is not None]
    if ends:
        add.add_eos_token_id(ends[0])
    elif metadata.value(f"{metadata.architecture}.attention.causal") is not False:
        _warn(
            f"'{files.folder}' says eos_token neither in tokenizer_config.json nor in "
            "special_tokens_map.json, and eos_token_id neither in config.json nor in "
            "generation_config.json: llama.cpp does not know where texts end. Say one of them"
        )
    others = [number for number in ends[1:] if tokens.texts[number] not in _ENDS]
    for number, write in zip(others, (add.add_eot_token_id, add.add_eom_token_id), strict=False):
        write(number)
    if len(others) > 2:
        texts = [repr(tokens.texts[number]) for number in others[2:]]
        _warn(
            f"'{files.folder}' has more tokens in eos_token_id than a GGUF file holds: llama.cpp "
            f"will not stop at {first_few(texts)}"
        )


def _number(files: TokenizerFiles, tokens: Tokens, key: str) -> int | None:
    """Return the token of a part, which texts name, or numbers in configs."""
    needed = key in _WORDS
    if (named := files.named(f"{key}_token")) is not None:
        text, name = named
        if text in tokens.numbers:
            return tokens.numbers[text]
        if needed:
            raise ValueError(
                f"'{files.path(name)}' has {key}_token {quoted(text)}, which is no token of the "
                "tokenizer beside it. Take both from where the weights came from"
            )
    if needed:
        return next(iter(_checked_numbers(files, tokens, key)), None)
    said = files.numbers(f"{key}_token_id")
    return said[0][0] if said and said[0][0] < len(tokens) else None


def _checked_numbers(files: TokenizerFiles, tokens: Tokens, key: str) -> list[int]:
    """Return the tokens that configs number, all of which must have rows."""
    said = files.numbers(f"{key}_token_id")
    for number, name in said:
        if number >= len(tokens):
            raise ValueError(
                f"'{files.path(name)}' has {key}_token_id {number}, and the model's embeddings "
                f"have {len(tokens)} rows. Take the file that came with the weights"
            )
    return [number for number, _ in said]


def _check_rows(files: TokenizerFiles, tokens: Tokens, numbers: tuple[int, ...]) -> None:
    for number in numbers:
        if number >= len(tokens):
            raise files.unlike(
                "post_processor",
                files.tokenizer.get("post_processor"),
                f"which puts the token {number} to texts, and the model's embeddings have "
                f"{len(tokens)} rows. Take the tokenizer that came with the weights",
            )


def _check_additional(files: TokenizerFiles, tokens: Tokens) -> None:
    known = {token.content for token in files.added}
    for text, said_in in files.additional.items():
        if text not in tokens.numbers and text not in known:
            raise ValueError(
                f"{said_in} has {quoted(text)}, of which no file says the number. Say it in "
                "added_tokens.json, or take the token out"
            )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=users_level())
