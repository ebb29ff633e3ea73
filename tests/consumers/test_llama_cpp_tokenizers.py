"""Tokenizers of folders, whose tokens llama.cpp finds as tokenizers and sentencepiece do.

`make test-llama-cpp` runs these, in an environment that has all of them.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hf_folders
import llama_cpp
import pytest
import sentencepiece
from commands import run
from tokenizer_models import (
    BYTES_AND_PIECES,
    LETTER,
    UNIGRAM,
    framed,
    pieces,
    trained,
    unigram,
    words,
)
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

ROWS = 700
TEXTS = (
    "Hello World, it's we'll I'D they'RE don't",
    "The quick brown fox jumps over 12 lazy dogs",
    "1 12 123 1234 12345 3.14 1,000,000 v2 x1y2 \u0663\u0664 \u00bd\u00b2",
    "a  b   c    d\te\t\tf \n g\n\nh \r\n i\r\rj   ",
    'if (x==1){return a[i]+b->c;} // end\n#include <stdio.h>\n\tfoo_bar("s");/*x*/\n/\n//\n',
    "...!!!??? --- === *** <<>> $100 50% #tag @user",
    "camelCase \u00c9t\u00e9 stra\u00dfe \u00e0 \u00f1 \u0434\u043e\u043c \u03a9",
    "\u6211\u60f3\u5728apple\u5de5\u4f5c1314151\u5929\uff5e \u3053\u3093\u306b \ud55c\uad6d\uc5b4",
    "\U0001f680 (normal) \U0001f636\u200d\U0001f32b\ufe0f \u2705 \u2026\u201cq",
    " lead  two\n  indent\n    four \n\n\n end \n",
    "  ",
    " The",
    "The ",
    "",
    " ",
    "\n",
    f"a{LETTER}b {LETTER}",
    "<0x41> <0x0A>",
)


@contextmanager
def vocabulary_of(path: Path) -> Any:
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, f"llama.cpp does not load {path}"
    yield llama_cpp.llama_model_get_vocab(model)
    llama_cpp.llama_model_free(model)


def found(path: Path, texts: Sequence[str], special: bool = False) -> list[list[int]]:
    """The tokens that llama.cpp finds."""
    buffer = (ctypes.c_int32 * 4096)()
    tokens = []
    with vocabulary_of(path) as vocabulary:
        for text in texts:
            data = text.encode()
            count = llama_cpp.llama_tokenize(
                vocabulary, data, len(data), buffer, len(buffer), special, True
            )
            tokens.append(list(buffer[:count]))
    return tokens


def written(folder: Path) -> tuple[Path, str]:
    """The GGUF of a folder, and what was said of it."""
    path = folder.parent / f"{folder.name}.gguf"
    result = run("dequantize", folder, path)
    assert result.exit_code == 0, result.stderr
    return path, result.stderr


def check(folder: Path, tokenizer: Tokenizer, texts: Sequence[str] = TEXTS, said: str = "") -> None:
    """Tokens are those of tokenizers, alone and with what is put around texts."""
    path, warned = written(folder)
    assert (said in warned) if said else not warned
    for special in (False, True):
        wanted = [tokenizer.encode(text, add_special_tokens=special).ids for text in texts]
        for text, right, ours in zip(texts, wanted, found(path, texts, special), strict=True):
            assert ours == right, (special, text)


def folder_of(tmp_path: Path, tokenizer: Tokenizer, **config: Any) -> Path:
    folder = hf_folders.write(
        tmp_path / "model", hf_folders.llama(layers=2, rows=ROWS), tokenizer, vocab_size=ROWS
    )
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


# Byte-level BPE.


@pytest.mark.parametrize(
    ("template", "tokens"),
    [
        ("$A", ()),
        ("<|begin|> $A", ("<|begin|>",)),
        ("$A <|end|>", ("<|end|>",)),
        ("<|end|> $A <|begin|>", ("<|begin|>", "<|end|>")),
    ],
)
def test_what_is_put_around_bytes(tmp_path: Path, template: str, tokens: tuple[str, ...]) -> None:
    tokenizer = framed(hf_folders.bpe(rows=ROWS), template, *tokens)
    check(folder_of(tmp_path, tokenizer), tokenizer)


def test_bytes_that_say_that_they_fall_back(tmp_path: Path) -> None:
    tokenizer = hf_folders.bpe(rows=ROWS, byte_fallback=True, unk_token="<|end|>")
    check(folder_of(tmp_path, tokenizer), tokenizer)


def test_bytes_that_are_normalized(tmp_path: Path) -> None:
    tokenizer = hf_folders.bpe(rows=ROWS)
    tokenizer.normalizer = normalizers.NFC()
    check(folder_of(tmp_path, tokenizer), tokenizer)


def test_tokens_added_to_bytes(tmp_path: Path) -> None:
    tokenizer = hf_folders.bpe(rows=600)
    tokenizer.add_special_tokens(["<|im_start|>", "<tool>"])
    tokenizer.add_tokens(["    ", "lazy", f"{LETTER}{LETTER}", "\u00e9t\u00e9"])
    texts = (
        *TEXTS,
        "<|im_start|>user\n the lazy dog<tool> <tool>",
        f"      x{LETTER}{LETTER} {LETTER}",
        "\u00e9t\u00e9lazylazy <|end|><|end|>",
    )
    check(folder_of(tmp_path, tokenizer), tokenizer, texts)


@pytest.mark.parametrize(
    ("added", "texts"),
    [
        (("<a>", "<a><b>", "<a><b>c"), ("<a><b>", "x<a><b>c<a> <a>", "<a><a><b><b>c")),
        (("@@", "@@@", "@@@@"), ("@@@@@", "a @@@ @ @@@@@@@@")),
    ],
)
def test_added_tokens_of_which_one_begins_as_another(
    tmp_path: Path, added: tuple[str, ...], texts: tuple[str, ...]
) -> None:
    tokenizer = hf_folders.bpe(rows=600)
    tokenizer.add_special_tokens(list(added))
    check(folder_of(tmp_path, tokenizer), tokenizer, texts)


def test_added_tokens_that_overlap(tmp_path: Path) -> None:
    """A warning has a text with other tokens."""
    tokenizer = hf_folders.bpe(rows=600)
    tokenizer.add_special_tokens(["<x>ab", "abcdefg"])
    path, said = written(folder_of(tmp_path, tokenizer))
    assert "'abcdefg', which overlaps '<x>ab' in texts such as '<x>abcdefg': llama.cpp" in said
    texts = ["<x>abcdefg", "<x>ab cd", "<x> abcdefg"]
    wanted = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    ours = found(path, texts)
    assert ours[0] != wanted[0]
    assert ours[1:] == wanted[1:]


# BPE of sentencepiece's pieces.


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("scheme", [None, "always", "first", "never"])
def test_spaces_of_pieces(tmp_path: Path, scheme: str | None, split: bool) -> None:
    tokenizer = pieces(ROWS, scheme, split)
    differs = scheme in ("always", "first")
    texts = [text for text in TEXTS if not (differs and text.startswith((" ", LETTER)))]
    if scheme != "first":
        texts += ["<s>The</s>The <s>", "x<unk>The"]
    check(folder_of(tmp_path, tokenizer), tokenizer, texts, "spaces" if differs else "")


def test_pieces_split_where_no_space_is_left(tmp_path: Path) -> None:
    tokenizer = hf_folders.pieces(ROWS, prepend=False)  # as Gemma
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    check(folder_of(tmp_path, tokenizer), tokenizer)


def test_tokens_added_to_pieces(tmp_path: Path) -> None:
    tokenizer = hf_folders.pieces(ROWS, prepend=True)
    tokenizer.add_special_tokens(["<|user|>", "<tool>"])
    tokenizer.add_tokens([AddedToken("lazy", normalized=False), AddedToken("he", normalized=False)])
    texts = (*TEXTS, "<|user|>The<tool> the lazy dog", "TheThe he", "<tool>The <s>")
    check(folder_of(tmp_path, tokenizer), tokenizer, texts)


# Unigram.


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({"merges": True, "words": True}, ()),
        ({"merges": True}, ()),
        ({"merges": True, "strip": False}, (" ", "\n", LETTER)),  # all of which become spaces
        ({"merges": False}, (" ", "\n", LETTER)),
        ({"merges": False, "scheme": "never"}, ()),
    ],
    ids=str,
)
def test_spaces_of_unigram(
    tmp_path: Path, options: dict[str, Any], left_out: tuple[str, ...]
) -> None:
    tokenizer = unigram(**options)
    texts = [
        text.replace("\r\n", "\n") for text in TEXTS
    ]  # one letter to tokenizers, two to others
    ends = str.endswith if options["merges"] else str.startswith
    texts = [text for text in texts if not left_out or not ends(text, left_out)]
    check(folder_of(tmp_path, tokenizer), tokenizer, texts, "spaces" if left_out else "")


# WordPiece.


@pytest.mark.parametrize("strip_accents", [None, True, False])
@pytest.mark.parametrize("lowercase", [True, False])
def test_letters_of_words(tmp_path: Path, lowercase: bool, strip_accents: bool | None) -> None:
    tokenizer = words(lowercase=lowercase, strip_accents=strip_accents)
    tokenizer.add_tokens([AddedToken("tool", normalized=False)])
    texts = (
        *TEXTS,
        "The foxes, the FOX! caf\u00e9 \u00c9t\u00e9 \u00e9t\u00e9 Resume\u0301 ab aB",
        "\u6211\u60f3\u5728 \u6211 a\u60f3b the\u00a0fox\u3000the",
        "the tool [SEP] toolbox [CLS]",
    )
    check(folder_of(tmp_path, tokenizer), tokenizer, texts)


# tokenizer.model alone.

MODELS: dict[str, dict[str, Any]] = {
    "bpe": BYTES_AND_PIECES,
    "bpe without a space": {**BYTES_AND_PIECES, "add_dummy_prefix": False},
    "bpe with symbols": {
        **BYTES_AND_PIECES,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["<tool>", LETTER * 2, LETTER * 4, "\n\n"],
    },
    "unigram": UNIGRAM,
    "unigram of all spaces": {**UNIGRAM, "remove_extra_whitespaces": False},
    "unigram as it is": {
        **UNIGRAM,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
    },
}


def sentencepiece_folder(tmp_path: Path, data: bytes, **files: Any) -> Path:
    folder = folder_of(tmp_path, hf_folders.pieces(ROWS))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(data)
    for name, said in files.items():
        (folder / f"{name}.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_sentencepiece(tmp_path: Path, name: str) -> None:
    data = trained(**MODELS[name])
    path, warned = written(sentencepiece_folder(tmp_path, data))
    assert ("spaces alone" in warned) if name == "unigram of all spaces" else not warned
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    texts = [*TEXTS, "a<tool>b  <tool>", "x    y     z\n\n\n"]
    if name == "unigram of all spaces":
        texts = [text for text in texts if text.strip()]
    if name == "bpe with symbols":
        texts = [text for text in texts if LETTER not in text]
    for text, ours in zip(texts, found(path, texts), strict=True):
        assert ours == processor.encode(text), text
    begun = found(path, ["The"], special=True)
    assert begun == [[1, *processor.encode("The")]]


def test_tokens_added_beside_a_model_of_sentencepiece(tmp_path: Path) -> None:
    data = trained(**BYTES_AND_PIECES)
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    count = processor.vocab_size()
    folder = sentencepiece_folder(
        tmp_path,
        data,
        added_tokens={"<tool>": count, "<|user|>": count + 1},
        tokenizer_config={
            "additional_special_tokens": ["<|user|>", {"content": "<|bot|>"}],
            "added_tokens_decoder": {str(count + 2): {"content": "<|bot|>", "special": True}},
            "eos_token": {"content": "<|bot|>"},
            "bos_token": {"content": "<s>"},
            "add_eos_token": True,
        },
    )
    path, _ = written(folder)
    the = processor.encode("The")
    (ours,) = found(path, ["The<tool>The<|user|>The<|bot|>"])
    assert ours == [*the, count, *the, count + 1, *the, count + 2]
    assert found(path, ["The"], special=True) == [[1, *the, count + 2]]


# Where a model stops.


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({"config": {"eos_token_id": [5, 6, 7]}}, {5, 6, 7}),
        ({"config": {}, "generation_config": {"eos_token_id": [8, 9]}}, {8, 9}),
        ({"config": {}, "special_tokens_map": {"eos_token": {"content": "<|end|>"}}}, {"<|end|>"}),
        (
            {"config": {"eos_token_id": 5}, "tokenizer_config": {"eos_token": "<|end|>"}},
            {5, "<|end|>"},
        ),
    ],
    ids=str,
)
def test_where_texts_end(tmp_path: Path, files: dict[str, Any], ends: set[Any]) -> None:
    tokenizer = hf_folders.bpe(rows=ROWS)
    folder = folder_of(tmp_path, tokenizer, eos_token=None)
    config = {key: value for key, value in hf_folders.CONFIG.items() if key != "eos_token_id"}
    (folder / "config.json").write_text(
        json.dumps({**config, "vocab_size": ROWS, **files["config"]})
    )
    for name, said in files.items():
        if name != "config":
            (folder / f"{name}.json").write_text(json.dumps(said))
    path, warned = written(folder)
    assert not warned
    wanted = {tokenizer.token_to_id(end) if isinstance(end, str) else end for end in ends}
    with vocabulary_of(path) as vocabulary:
        stops = {n for n in range(ROWS) if llama_cpp.llama_vocab_is_eog(vocabulary, n)}
    assert stops - {tokenizer.token_to_id("<|end|>")} == wanted - {tokenizer.token_to_id("<|end|>")}
    assert wanted <= stops
