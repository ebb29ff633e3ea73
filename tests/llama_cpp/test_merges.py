"""Folders whose tokenizer is a vocab.json with a merges.txt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import hf_folders
import pytest
from commands import failed, succeeded
from tokenizers import normalizers, pre_tokenizers

QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
BEGIN, END = hf_folders.SPECIAL
CONFIG = {
    "tokenizer_class": "GPT2Tokenizer",
    "bos_token": BEGIN,
    "eos_token": {"content": END},
    "unk_token": END,
    "added_tokens_decoder": {"318": {"content": BEGIN}, "319": {"content": END}},
}


def written(folder: Path, split: Any, config: dict[str, Any]) -> Path:
    """Write a folder that has both a tokenizer.json and what it is without that."""
    tokenizer = hf_folders.bpe(split)
    names = {
        token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()
    }
    decoder = {str(names[text]): {"content": text} for text in hf_folders.SPECIAL}
    if split is not None and "Split" in repr(split):
        tokenizer.normalizer = normalizers.NFC()
    hf_folders.write(folder, tokenizer=tokenizer)
    tokenizer.model.save(str(folder))
    if "added_tokens_decoder" in config:
        config = {**config, "added_tokens_decoder": decoder}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def of_bytes() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def keys_of(folder: Path) -> dict[str, Any]:
    path = folder.parent / "out.gguf"
    succeeded("dequantize", folder, path, "--overwrite")
    fields = gguf.GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if key.startswith("tokenizer.")}


@pytest.mark.parametrize(
    ("kind", "split", "pre"),
    [
        ("GPT2Tokenizer", of_bytes(), "gpt-2"),
        ("GPT2TokenizerFast", of_bytes(), "gpt-2"),
        ("Qwen2Tokenizer", hf_folders.split(QWEN_2), "qwen2"),
    ],
)
def test_keys_are_those_of_the_same_tokenizer_json(
    tmp_path: Path, kind: str, split: Any, pre: str
) -> None:
    named = {"pad_token": END} if kind.startswith("Qwen2") else {}
    folder = written(tmp_path / "model", split, {**CONFIG, **named, "tokenizer_class": kind})
    wanted = keys_of(folder)
    (folder / "tokenizer.json").unlink()
    found = keys_of(folder)
    assert found == wanted
    assert found["tokenizer.ggml.pre"] == pre
    assert found["tokenizer.ggml.merges"]


def test_special_tokens_of_the_vocabulary_control(tmp_path: Path) -> None:
    config = {**CONFIG, "additional_special_tokens": ["qu"], "eos_token": "The", "unk_token": "The"}
    folder = written(tmp_path / "model", of_bytes(), config)
    (folder / "tokenizer.json").unlink()
    keys = keys_of(folder)
    types = dict(zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True))
    assert types["The"] == types["qu"] == types[BEGIN] == 3
    assert types["b"] == 1
    assert keys["tokenizer.ggml.tokens"][keys["tokenizer.ggml.eos_token_id"]] == "The"


def without(key: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        said = {name: value for name, value in CONFIG.items() if name != key}
        (folder / "tokenizer_config.json").write_text(json.dumps(said))

    return change


def saying(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def with_line(line: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "merges.txt"
        path.write_bytes(path.read_bytes() + line)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("tokenizer_class"), ["tokenizer_config.json", "tokenizer_class is None"]),
        (saying(tokenizer_class="BartTokenizer"), ["'BartTokenizer'", "Known are GPT2Tokenizer"]),
        (without("unk_token"), ["vocab.json': unk_token has '<|endoftext|>'", "no number"]),
        (saying(additional_special_tokens=["<x>"]), ["tokenizer_config.json", "<x>", "no number"]),
        (saying(add_prefix_space=True), ["vocab.json", "add_prefix_space"]),
        (with_line(b"one\n"), ["merges.txt': line 5", "'one'"]),
        (with_line(b"a b c\n"), ["merges.txt': line 5", "'a b c'"]),
        (with_line(b"\xff \xfe\n"), ["merges.txt' is no UTF-8 from byte"]),
        (lambda folder: (folder / "merges.txt").unlink(), ["has none of", "merges.txt"]),
        (lambda folder: (folder / "vocab.json").write_text("[]"), ["vocab.json"]),
    ],
)
def test_what_does_not_say_it_all_is_refused(
    tmp_path: Path, change: Callable[[Path], object], words: list[str]
) -> None:
    folder = written(tmp_path / "model", of_bytes(), CONFIG)
    (folder / "tokenizer.json").unlink()
    change(folder)
    error = failed("quantize", folder, tmp_path / "a.gguf", "--dry-run")
    assert str(folder) in error
    for word in words:
        assert word in error
