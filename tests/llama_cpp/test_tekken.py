"""Folders of Mistral whose tokenizer is a tekken.json."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import hf_folders
import numpy as np
import pytest
from commands import failed, succeeded

PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = [*(bytes([byte]) for byte in range(256)), b" a", b"ab", b"abc", b" ab", "\u00e9".encode()]
SPECIAL = 20
ROWS = SPECIAL + len(WORDS)
BEYOND = b"zz"  # which the model has no room for


def tekken(**changes: Any) -> dict[str, Any]:
    words = [
        {"rank": rank, "token_bytes": base64.b64encode(word).decode(), "token_str": None}
        for rank, word in enumerate([*WORDS, BEYOND])
    ]
    config = {
        "pattern": PATTERN,
        "num_vocab_tokens": len(words),
        "default_vocab_size": ROWS,
        "default_num_special_tokens": SPECIAL,
        "version": "v3",
    }
    return {"config": config, "vocab": words, **changes}


def written(folder: Path, said: Any) -> Path:
    hf_folders.write(
        folder,
        hf_folders.llama(rows=ROWS),
        architectures=["MistralForCausalLM"],
        without=["bos_token_id", "eos_token_id"],
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "tekken.json").write_text(json.dumps(said))
    return folder


def keys_of(folder: Path) -> dict[str, Any]:
    path = folder.parent / "out.gguf"
    succeeded("dequantize", folder, path)
    fields = gguf.GGUFReader(path).fields
    return {
        key.removeprefix("tokenizer.ggml."): field.contents()
        for key, field in fields.items()
        if key.startswith("tokenizer.ggml.")
    }


def test_words_come_after_special_tokens(tmp_path: Path) -> None:
    keys = keys_of(written(tmp_path / "model", tekken()))
    assert keys["model"] == "gpt2"
    assert keys["pre"] == "tekken"
    tokens = keys["tokens"]
    assert len(tokens) == ROWS
    assert tokens[:4] == ["<unk>", "<s>", "</s>", "[INST]"]
    assert tokens[SPECIAL + ord("a")] == "a"
    assert tokens[SPECIAL + ord(" ")] == "\u0120"
    assert tokens[SPECIAL + 256 :] == ["\u0120a", "ab", "abc", "\u0120ab", "\u00c3\u00a9"]
    assert keys["merges"] == [
        "\u0120 a",
        "a b",
        "ab c",
        "\u0120 ab",
        "\u0120a b",
        "\u00c3 \u00a9",
    ]
    assert keys["token_type"][1] == 3
    assert keys["token_type"][SPECIAL] == 1
    assert (keys["bos_token_id"], keys["eos_token_id"]) == (1, 2)
    assert (keys["unknown_token_id"], keys["padding_token_id"]) == (0, 11)
    assert keys["add_bos_token"] is True
    assert keys["add_eos_token"] is False


def test_special_tokens_that_are_listed(tmp_path: Path) -> None:
    texts = ["<unk>", "<s>", "</s>", "<pad>", "[NEW]"]
    listed = [
        {"rank": rank, "token_str": text, "is_control": rank != 4}
        for rank, text in enumerate(texts)
    ]
    keys = keys_of(written(tmp_path / "model", tekken(special_tokens=listed)))
    assert keys["tokens"][:6] == [*texts, "[PAD5]"]
    assert keys["token_type"][4:6] == [4, 5]
    assert keys["padding_token_id"] == 3


def test_a_tokenizer_json_beside_it_counts(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", tekken())
    hf_folders.bpe(rows=ROWS).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    assert keys_of(folder)["pre"] != "tekken"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: said.pop("config"), ["config must be an object"]),
        (lambda said: said["config"].pop("pattern"), ["config.pattern"]),
        (lambda said: said["config"].update(default_vocab_size=-1), ["config.default_vocab_size"]),
        (lambda said: said.update(vocab={}), ["vocab must be a list"]),
        (lambda said: said["vocab"][3].update(rank=4), ["vocab[3]", "rank 3"]),
        (lambda said: said["vocab"][3].update(token_bytes="\u00e9"), ["vocab[3]", "token_bytes"]),
        (lambda said: said["vocab"][3].update(token_bytes=None), ["vocab[3]", "token_bytes"]),
        (lambda said: said["vocab"][3].update(token_bytes="YWI="), ["a word twice"]),
        (lambda said: said.update(special_tokens=[{"rank": 99}]), ["special_tokens"]),
        (lambda said: said.update(special_tokens=[]), ["special_tokens lack <s>"]),
        (lambda said: said["config"].update(pattern="[aeiou]"), ["splits texts", "pre_tokenizer"]),
    ],
)
def test_a_damaged_file_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: list[str]
) -> None:
    said = tekken()
    change(said)
    folder = written(tmp_path / "model", said)
    error = failed("quantize", folder, tmp_path / "a.gguf", "--dry-run")
    for word in (str(folder / "tekken.json"), *words):
        assert word in error


def test_more_words_than_rows_are_refused(tmp_path: Path) -> None:
    said = tekken()
    said["config"]["default_vocab_size"] = ROWS + 1
    folder = written(tmp_path / "model", said)
    assert "tekken.json" in failed("quantize", folder, tmp_path / "a.gguf")
    assert np.unique([word["rank"] for word in said["vocab"]]).size == len(said["vocab"])
