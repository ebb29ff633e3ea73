"""Tokenizers that llama.cpp has not: refused before any work, by file, key, value and way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_folders
import pytest
import tokenizer_models
from commands import failed, run
from tokenizer_models import BYTES_AND_PIECES, LETTER, UNIGRAM, trained
from tokenizers import AddedToken, Tokenizer

Said = dict[str, Any]
Change = Callable[[Said], object]


def refused(folder: Path, name: str, *words: str) -> None:
    """The error is one line that names the file and all else."""
    error = failed("quantize", folder, folder.parent / "out.gguf", "--dry-run")
    assert error.startswith(f"Error: '{folder / name}'"), error
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}


def tokenizers_of(kind: str) -> Tokenizer:
    return {
        "bytes": hf_folders.bpe,
        "pieces": lambda: tokenizer_models.pieces(hf_folders.ROWS),
        "metaspace": lambda: tokenizer_models.pieces(hf_folders.ROWS, "first"),
        "unigram": lambda: tokenizer_models.unigram(merges=False),
        "words": tokenizer_models.words,
    }[kind]()


def into(key: str, **values: Any) -> Change:
    """A change of what is under a key."""
    return lambda said: said[key].update(values)


def whole(**values: Any) -> Change:
    return lambda said: said.update(values)


def step(kind: str, **values: Any) -> Said:
    return {"type": kind, **values}


def in_turn(key: str, *steps: Said) -> Said:
    return step("Sequence", **{key: list(steps)})


def byte_level(**values: Any) -> Said:
    said = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return step("ByteLevel", **{**said, **values})


REPLACE = step("Replace", pattern={"String": " "}, content=LETTER)
PREPEND = step("Prepend", prepend=LETTER)
TEMPLATE = step(
    "TemplateProcessing",
    single=[{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    pair=[{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    special_tokens={"<s>": {"id": "<s>", "ids": [999], "tokens": ["<s>"]}},
)
CHANGES: dict[str, tuple[str, Change, list[str]]] = {
    "a prefix": ("bytes", into("model", continuing_subword_prefix="##"), ["prefix", "##"]),
    "a suffix": ("bytes", into("model", end_of_word_suffix="</w>"), ["suffix", "</w>"]),
    "dropout": ("bytes", into("model", dropout=0.1), ["model.dropout", "0.1", "null"]),
    "a space before bytes": (
        "bytes",
        whole(pre_tokenizer=byte_level(add_prefix_space=True)),
        ["pre_tokenizer", "'add_prefix_space': True", '"add_prefix_space": false'],
    ),
    "bytes of bytes": (
        "bytes",
        whole(pre_tokenizer=in_turn("pretokenizers", byte_level(), byte_level())),
        ["pre_tokenizer", "ByteLevel"],
    ),
    "words without bytes": (
        "bytes",
        whole(pre_tokenizer=step("Whitespace")),
        ["pre_tokenizer", "Whitespace", "byte_fallback"],
    ),
    "missing bytes": (
        "bytes",
        lambda said: (
            said["model"]["vocab"].pop("\u0100"),
            said["model"].update(unk_token="<|end|>"),
        ),
        ["model.vocab", "\u0100", "unk_token"],
    ),
    "NFKC of bytes": ("bytes", whole(normalizer=step("NFKC")), ["normalizer", "NFKC"]),
    "whole pieces": ("pieces", into("model", ignore_merges=True), ["ignore_merges", "True"]),
    "a missing byte": (
        "pieces",
        lambda said: said["model"]["vocab"].pop("<0x41>"),
        ["<0x41>", "No GGUF file"],
    ),
    "another letter for spaces": (
        "pieces",
        whole(normalizer=in_turn("normalizers", {**REPLACE, "content": "_"})),
        ["normalizer", "'content': '_'"],
    ),
    "another pattern than spaces": (
        "pieces",
        whole(normalizer=in_turn("normalizers", {**REPLACE, "pattern": {"Regex": " +"}})),
        ["normalizer", "' +'"],
    ),
    "another letter before texts": (
        "pieces",
        whole(normalizer=in_turn("normalizers", {**PREPEND, "prepend": "_"}, REPLACE)),
        ["normalizer", "'prepend': '_'"],
    ),
    "spaces that stay": ("pieces", whole(normalizer=None), ["normalizer", "None", LETTER]),
    "pieces of words": (
        "pieces",
        whole(pre_tokenizer=step("Digits", individual_digits=True)),
        ["pre_tokenizer", "Digits"],
    ),
    "another letter of Metaspace": (
        "metaspace",
        into("pre_tokenizer", replacement="_"),
        ["pre_tokenizer", "'_'"],
    ),
    "another scheme": ("metaspace", into("pre_tokenizer", prepend_scheme="some"), ["'some'"]),
    "a token across words": (
        "metaspace",
        lambda said: (
            said["pre_tokenizer"].update(split=True),
            said["model"]["vocab"].update({f"a{LETTER}": 310}),
        ),
        [f"'a{LETTER}'", '"split": false'],
    ),
    "a pair that does not merge": (
        "pieces",
        lambda said: said["model"]["vocab"].update({"ox": 310}),
        ["model.merges", "'o'", "'x'", "'ox'"],
    ),
    "pairs of two tokens in turn": (
        "pieces",
        lambda said: (
            said["model"]["vocab"].update({"the": 310, "th": 311}),
            said["model"].update(merges=[["t", "he"], ["h", "e"], ["t", "h"], ["th", "e"]]),
            said["model"]["vocab"].pop(f"{LETTER}T"),
            said["model"]["vocab"].pop(f"{LETTER}The"),
        ),
        ["model.merges[3]", "th e", "'the'"],
    ),
    "bytes of unigram": ("unigram", into("model", byte_fallback=True), ["byte_fallback", "True"]),
    "nothing unknown": ("unigram", into("model", unk_id=None), ["model.unk_id", "None"]),
    "lower case of unigram": (
        "unigram",
        whole(normalizer=step("Lowercase")),
        ["normalizer", "Lowercase", "Precompiled"],
    ),
    "words of unigram": (
        "unigram",
        whole(pre_tokenizer=step("WhitespaceSplit")),
        ["pre_tokenizer", "Metaspace"],
    ),
    "merged spaces without one before": (
        "unigram",
        lambda said: (
            said["pre_tokenizer"].update(prepend_scheme="never"),
            said["normalizer"]["normalizers"].append(
                step("Replace", pattern={"Regex": " {2,}"}, content=" ")
            ),
        ),
        ["pre_tokenizer", "never", "merges spaces"],
    ),
    "a map that is cut short": (
        "unigram",
        lambda said: said["normalizer"]["normalizers"][0].update(precompiled_charsmap="AAEAAA=="),
        ["precompiled_charsmap", "cut short"],
    ),
    "Chinese words": (
        "words",
        into("normalizer", handle_chinese_chars=False),
        ["normalizer.handle_chinese_chars", "False", "Say true"],
    ),
    "letters that control": (
        "words",
        into("normalizer", clean_text=False),
        ["normalizer.clean_text", "False"],
    ),
    "lower case of words": (
        "words",
        whole(normalizer=step("Lowercase")),
        ["normalizer", "Lowercase", "BertNormalizer"],
    ),
    "words without a normalizer": ("words", whole(normalizer=None), ["normalizer", "None"]),
    "words by spaces": (
        "words",
        whole(pre_tokenizer=step("WhitespaceSplit")),
        ["pre_tokenizer", "WhitespaceSplit", "BertPreTokenizer"],
    ),
    "words with nothing around": ("words", whole(post_processor=None), ["post_processor", "[CLS]"]),
    "unknown words": ("words", into("model", unk_token="[NO]"), ["model.unk_token", "'[NO]'"]),
    "a token with two numbers": (
        "bytes",
        lambda said: said["added_tokens"].append({**said["added_tokens"][0], "id": 300}),
        ["'<|begin|>'", "300", "twice"],
    ),
    "two tokens of a number": (
        "bytes",
        lambda said: said["added_tokens"][0].update(id=5),
        ["'<|begin|>'", "number 5"],
    ),
    "a single word": (
        "bytes",
        lambda said: said["added_tokens"][0].update(single_word=True),
        ["'<|begin|>'", "single_word", "false"],
    ),
    "a token around texts without a row": (
        "pieces",
        whole(post_processor=TEMPLATE),
        ["post_processor", "999", "320 rows"],
    ),
    "a template without the text": (
        "pieces",
        whole(post_processor={**TEMPLATE, "single": []}),
        ["post_processor.single", "[]"],
    ),
    "steps that are none": ("bytes", whole(normalizer=[1]), ["normalizer", "[1]"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_in_tokenizer_json(tmp_path: Path, name: str) -> None:
    kind, change, words = CHANGES[name]
    folder = hf_folders.write(tmp_path / "model", tokenizer=tokenizers_of(kind))
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))
    refused(folder, "tokenizer.json", *words)


@pytest.mark.parametrize(
    ("kind", "files", "words"),
    [
        ("bytes", {"tokenizer_config": {"add_prefix_space": True}}, ["add_prefix_space", "True"]),
        ("metaspace", {"tokenizer_config": {"add_prefix_space": False}}, ["False", "same"]),
        ("bytes", {"tokenizer_config": {"add_bos_token": True}}, ["add_bos_token", "bos_token"]),
        ("bytes", {"tokenizer_config": {"add_eos_token": 1}}, ["add_eos_token", "1", "true"]),
        ("bytes", {"tokenizer_config": {"eos_token": ["x"]}}, ["eos_token", "['x']"]),
        (
            "bytes",
            {"tokenizer_config": {"eos_token": "<|end|>", "chat_template": 5}},
            ["chat_template", "5"],
        ),
        ("bytes", {"special_tokens_map": {"eos_token": "<no>"}}, ["eos_token", "'<no>'"]),
        ("bytes", {"generation_config": {"eos_token_id": [1, 320]}}, ["eos_token_id", "320 rows"]),
        ("bytes", {"generation_config": {"eos_token_id": "1"}}, ["eos_token_id", "'1'"]),
        ("bytes", {"added_tokens": {"<new>": 3}}, ["'<new>'", "number 3"]),
        ("bytes", {"added_tokens": {"<|end|>": 3}}, ["'<|end|>'", "number 3"]),
        (
            "bytes",
            {"tokenizer_config": {"added_tokens_decoder": {"x": {}}}},
            ["added_tokens_decoder"],
        ),
        ("bytes", {"tokenizer_config": {"additional_special_tokens": ["<new>"]}}, ["'<new>'"]),
    ],
    ids=str,
)
def test_beside_tokenizer_json(
    tmp_path: Path, kind: str, files: dict[str, Said], words: list[str]
) -> None:
    folder = hf_folders.write(tmp_path / "model", tokenizer=tokenizers_of(kind))
    (folder / "tokenizer_config.json").unlink()
    without_ends(folder)
    for name, said in files.items():
        (folder / f"{name}.json").write_text(json.dumps(said))
    refused(folder, f"{next(iter(files))}.json", *words)


def without_ends(folder: Path) -> None:
    path = folder / "config.json"
    said = json.loads(path.read_text())
    del said["bos_token_id"], said["eos_token_id"]
    path.write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("added_tokens.json", "\ud800", ["'\\ud800'", "UTF-16"]),
        ("tokenizer.json", "a\0b", ["would both be 'a'"]),
    ],
)
def test_added_tokens_that_are_no_texts(
    tmp_path: Path, name: str, text: str, words: list[str]
) -> None:
    folder = hf_folders.write(tmp_path / "model", tokenizer=tokenizers_of("pieces"))
    (folder / "added_tokens.json").write_text(json.dumps({text: 300}))
    refused(folder, name, *words)


def test_a_control_token_that_is_normalized(tmp_path: Path) -> None:
    tokenizer = tokenizers_of("pieces")
    tokenizer.add_special_tokens([AddedToken("<tool>", normalized=True)])
    folder = hf_folders.write(tmp_path / "model", tokenizer=tokenizer)
    result = run("quantize", folder, tmp_path / "out.gguf")
    assert result.exit_code == 0
    assert f"'<tool>' as '{LETTER}<tool>'" in result.stderr


def test_an_added_token_that_is_normalized(tmp_path: Path) -> None:
    tokenizer = tokenizer_models.words(lowercase=True)
    tokenizer.add_tokens([AddedToken("TOOL", normalized=True)])
    folder = hf_folders.write(tmp_path / "model", tokenizer=tokenizer)
    refused(folder, "tokenizer.json", "'TOOL'", "'tool'", '"normalized": false')


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_type": "word", "vocab_size": 20}, ["trainer_spec.model_type", "word"]),
        ({"model_type": "char", "vocab_size": 40}, ["trainer_spec.model_type", "char"]),
        (
            {**BYTES_AND_PIECES, "normalization_rule_name": "nmt_nfkc"},
            ["normalizer_spec.precompiled_charsmap"],
        ),
        (
            {**BYTES_AND_PIECES, "remove_extra_whitespaces": True},
            ["normalizer_spec.remove_extra_whitespaces", "True"],
        ),
        ({**BYTES_AND_PIECES, "byte_fallback": False, "vocab_size": 60}, ["<0x00>"]),
        ({**UNIGRAM, "byte_fallback": True, "vocab_size": 320}, ["trainer_spec.byte_fallback"]),
        ({**UNIGRAM, "add_dummy_prefix": False}, ["normalizer_spec.add_dummy_prefix", "False"]),
        ({**UNIGRAM, "treat_whitespace_as_suffix": True}, ["treat_whitespace_as_suffix", "True"]),
    ],
    ids=str,
)
def test_in_tokenizer_model(tmp_path: Path, options: Said, words: list[str]) -> None:
    refused(of_sentencepiece(tmp_path, trained(**options)), "tokenizer.model", *words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["no pieces"]),
        (b"\x0a\x05abc", ["cut short"]),
        (b"\x0a\xff", ["cut short"]),
        (b"\x0a" + b"\xff" * 20, ["64 bits"]),
        (b"\x0b\x00", ["kind 3"]),
        (b"\x08\x01", ["a number where bytes belong"]),
        (b"\x0a\x03\x0a\x01\xff", ["utf-8"]),
        (b"\x0a\x06\x0a\x01a\x12\x01a", ["4 bytes"]),
    ],
    ids=repr,
)
def test_what_is_no_tokenizer_model(tmp_path: Path, data: bytes, words: list[str]) -> None:
    refused(of_sentencepiece(tmp_path, data), "tokenizer.model", "sentencepiece", *words)


def of_sentencepiece(tmp_path: Path, data: bytes) -> Path:
    folder = hf_folders.write(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(data)
    return folder


def test_what_tokenizers_itself_panics_at(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model", tokenizer=tokenizers_of("unigram"))
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text())
    (normalizer,) = said["normalizer"]["normalizers"]
    normalizer["precompiled_charsmap"] = f"{normalizer['precompiled_charsmap'][:-9]}="
    path.write_text(json.dumps(said))
    refused(folder, "tokenizer.json", "is none that tokenizers reads", "Precompiled")
