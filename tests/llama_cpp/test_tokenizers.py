"""Tokenizers of folders as the keys of a GGUF."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import hf_folders
import pytest
import sentencepiece
import tokenizer_models
from commands import failed, run, succeeded
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
# As the tokenizer.json of such models has them.
SPLITS: dict[str, tuple[Any, bool]] = {
    "gpt-2": (GPT_2, False),
    "smollm": (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT_2]),
        False,
    ),
    "llama-bpe": (hf_folders.split(hf_folders.LLAMA_3), True),
    "smaug-bpe": (hf_folders.split(hf_folders.LLAMA_3), False),
    "qwen2": (hf_folders.split(QWEN_2), False),
    "tekken": (hf_folders.split(TEKKEN), True),
    "deepseek-v3": (hf_folders.split(*DEEPSEEK_V3), False),
}


def keys_of(folder: Path, *options: str) -> dict[str, Any]:
    out = folder.parent / "out.gguf"
    succeeded("quantize", folder, out, "--overwrite", *options)
    fields = gguf.GGUFReader(out).fields
    return {
        key.removeprefix("tokenizer."): field.contents()
        for key, field in fields.items()
        if key.startswith("tokenizer.")
    }


@pytest.mark.parametrize("name", SPLITS)
def test_how_texts_are_split_has_a_name(tmp_path: Path, name: str) -> None:
    split, ignores_merges = SPLITS[name]
    tokenizer = hf_folders.bpe(split, ignore_merges=ignores_merges)
    keys = keys_of(hf_folders.write(tmp_path / "model", tokenizer=tokenizer))
    assert keys["ggml.pre"] == name


def test_bytes(tmp_path: Path) -> None:
    tokenizer = hf_folders.bpe()
    keys = keys_of(hf_folders.write(tmp_path / "model", tokenizer=tokenizer))
    said = json.loads(tokenizer.to_str())["model"]
    tokens = keys["ggml.tokens"]
    assert keys["ggml.model"] == "gpt2"
    assert {
        token: number for number, token in enumerate(tokens) if keys["ggml.token_type"][number] == 1
    } == said["vocab"]
    assert [merge.split(" ") for merge in keys["ggml.merges"]] == [list(m) for m in said["merges"]]
    special = {tokenizer.token_to_id(token) for token in hf_folders.SPECIAL}
    assert {n for n, kind in enumerate(keys["ggml.token_type"]) if kind == 3} == special
    unused = range(tokenizer.get_vocab_size(), hf_folders.ROWS)
    assert [tokens[number] for number in unused] == [f"[PAD{number}]" for number in unused]
    assert {keys["ggml.token_type"][number] for number in unused} == {5}
    assert keys["ggml.bos_token_id"] == tokenizer.token_to_id("<|begin|>")
    assert keys["ggml.eos_token_id"] == tokenizer.token_to_id("<|end|>")
    assert keys["ggml.add_bos_token"] is False
    assert keys["chat_template"] == "{{ x }}"


def test_merges_that_are_there_twice(tmp_path: Path) -> None:
    """llama.cpp takes the first place of a pair, and tokenizers the last one."""
    said = json.loads(hf_folders.bpe(rows=300).to_str())
    vocabulary, merges = said["model"]["vocab"], said["model"]["merges"]
    vocabulary.update({"zx": 298, "xw": 299})
    said["added_tokens"] = []
    merges += [["z", "x"], ["x", "w"], ["z", "x"]]
    tokenizer = Tokenizer.from_str(json.dumps(said))
    assert tokenizer.encode("zxw").tokens == ["z", "xw"]
    folder = hf_folders.write(tmp_path / "model", tokenizer=tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(said))
    assert keys_of(folder)["ggml.merges"][-2:] == ["x w", "z x"]


def test_added_tokens_are_found_in_texts(tmp_path: Path) -> None:
    tokenizer = hf_folders.bpe(rows=300)
    tokenizer.add_tokens(["<tool>", "<|tool|>", "\u2581\u2581"])
    keys = keys_of(hf_folders.write(tmp_path / "model", tokenizer=tokenizer))
    found = dict(zip(keys["ggml.tokens"], keys["ggml.token_type"], strict=True))
    assert (found["<tool>"], found["<|tool|>"], found["\u2581\u2581"]) == (4, 3, 4)


@pytest.mark.parametrize("prepend", [True, False])
def test_pieces(tmp_path: Path, prepend: bool) -> None:
    tokenizer = hf_folders.pieces(prepend=prepend)
    keys = keys_of(hf_folders.write(tmp_path / "model", tokenizer=tokenizer))
    assert keys["ggml.model"] == "llama"
    assert keys["ggml.add_space_prefix"] is prepend
    tokens, types, scores = (keys[f"ggml.{key}"] for key in ("tokens", "token_type", "scores"))
    assert tokens[: tokenizer.get_vocab_size()] == [
        tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())
    ]
    assert types[:3] == [2, 3, 3]
    assert types[3:259] == [6] * 256
    by_score = sorted(
        ("\u2581T", "he", "\u2581The"), key=lambda token: -scores[tokens.index(token)]
    )
    assert by_score == ["\u2581T", "he", "\u2581The"]  # the order of merges
    assert scores[tokens.index("q")] < scores[tokens.index("\u2581The")]


def test_words(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "fox", "##es", "the"]
    tokenizer = Tokenizer(
        models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(words[:4])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (320, 256),
        "embeddings.position_embeddings.weight": (128, 256),
        "embeddings.token_type_embeddings.weight": (2, 256),
        "embeddings.LayerNorm.weight": (256,),
        "embeddings.LayerNorm.bias": (256,),
        "pooler.dense.weight": (256, 256),
    }
    before = "encoder.layer.0."
    for part, shape in {
        "attention.self.query": (256, 256),
        "attention.self.key": (256, 256),
        "attention.self.value": (256, 256),
        "attention.output.dense": (256, 256),
        "attention.output.LayerNorm": (256,),
        "intermediate.dense": (512, 256),
        "output.dense": (256, 512),
        "output.LayerNorm": (256,),
    }.items():
        shapes |= {f"{before}{part}.weight": shape, f"{before}{part}.bias": shape[:1]}
    folder = hf_folders.write(
        tmp_path / "model",
        hf_folders.weights(shapes),
        tokenizer,
        architectures=["BertModel"],
        num_hidden_layers=1,
        layer_norm_eps=1e-12,
        type_vocab_size=2,
        without=["num_key_value_heads", "rms_norm_eps", "rope_theta"],
    )
    (folder / "modules.json").write_text(
        json.dumps([{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    keys = keys_of(folder)
    assert keys["ggml.model"] == "bert"
    assert keys["ggml.tokens"][:7] == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "\u2581fox",
        "es",
        "\u2581the",
    ]
    assert keys["ggml.normalizer.lowercase"] is True
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    assert fields["bert.attention.causal"].contents() is False
    assert fields["bert.pooling_type"].contents() == 1


def test_a_name_can_be_said(tmp_path: Path) -> None:
    strange = hf_folders.split("[aeiou]")
    folder = hf_folders.write(tmp_path / "model", tokenizer=hf_folders.bpe(strange))
    error = failed("quantize", folder, tmp_path / "a.gguf")
    assert "tokenizer.json" in error
    assert "--pre-tokenizer" in error
    assert keys_of(folder, "--pre-tokenizer", "jais")["ggml.pre"] == "jais"
    succeeded("dequantize", folder, tmp_path / "b.gguf", "--pre-tokenizer", "jais")
    assert gguf.GGUFReader(tmp_path / "b.gguf").fields["tokenizer.ggml.pre"].contents() == "jais"
    error = failed("quantize", folder, tmp_path / "a.gguf", "--pre-tokenizer", "lama", code=2)
    assert "llama-bpe" in error


def test_a_name_where_none_is_needed(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    said = ("--pre-tokenizer", "jais")
    error = failed("quantize", folder, tmp_path / "a", "--to", "mlx", *said, code=2)
    assert "--pre-tokenizer jais" in error
    assert "Leave it out" in error
    error = failed("dequantize", folder, tmp_path / "a.safetensors", *said, code=2)
    assert "--pre-tokenizer is only for gguf" in error
    succeeded("dequantize", folder, tmp_path / "model.gguf")
    for command in ("quantize", "dequantize"):
        error = failed(command, tmp_path / "model.gguf", tmp_path / "a.gguf", *said, code=2)
        assert "model.gguf" in error
        assert "Hugging Face folders" in error
    pieces = hf_folders.write(tmp_path / "pieces", tokenizer=hf_folders.pieces())
    error = failed("dequantize", pieces, tmp_path / "a.gguf", *said, code=2)
    assert "tokenizer.json" in error
    assert "BPE of bytes" in error


@pytest.mark.parametrize(
    "make",
    [
        hf_folders.bpe,
        lambda: tokenizer_models.pieces(320),
        lambda: tokenizer_models.unigram(merges=True),
        tokenizer_models.words,
    ],
    ids=["bytes", "pieces", "unigram", "words"],
)
def test_tokens_beyond_the_embeddings(tmp_path: Path, make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    tokenizer.add_special_tokens([f"<extra{number}>" for number in range(320)])
    folder = hf_folders.write(tmp_path / "model", tokenizer=tokenizer)
    result = run("quantize", folder, tmp_path / "a.gguf")
    assert result.exit_code == 0
    assert "tokenizer.json" in result.stderr
    assert "no row" in result.stderr
    assert "<extra" in result.stderr


def test_a_model_beyond_the_embeddings(tmp_path: Path) -> None:
    tokenizer = tokenizer_models.pieces(320)
    weights = hf_folders.llama(rows=280)
    folder = hf_folders.write(tmp_path / "model", weights, tokenizer, vocab_size=280)
    assert "280 rows" in failed("quantize", folder, tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("tokenizer", "wanted"),
    [
        (
            tokenizer_models.unigram(merges=True),
            {"add_space_prefix": True, "remove_extra_whitespaces": True},
        ),
        (
            tokenizer_models.unigram(merges=False, scheme="never"),
            {"add_space_prefix": False, "remove_extra_whitespaces": False},
        ),
        (
            tokenizer_models.words(lowercase=True),
            {"normalizer.lowercase": True, "normalizer.strip_accents": None},
        ),
        (
            tokenizer_models.words(lowercase=True, strip_accents=False),
            {"normalizer.lowercase": True, "normalizer.strip_accents": False},
        ),
        (
            tokenizer_models.words(lowercase=False, strip_accents=True),
            {"normalizer.lowercase": False, "normalizer.strip_accents": True},
        ),
    ],
    ids=["merged spaces", "all spaces", "lower", "lower with accents", "cased"],
)
def test_what_is_done_to_texts(
    tmp_path: Path, tokenizer: Tokenizer, wanted: dict[str, bool | None]
) -> None:
    keys = keys_of(hf_folders.write(tmp_path / "model", tokenizer=tokenizer))
    assert {key: keys.get(f"ggml.{key}") for key in wanted} == wanted
    assert ("ggml.precompiled_charsmap" in keys) == (keys["ggml.model"] == "t5")


def test_a_tokenizer_model(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    options = {**tokenizer_models.BYTES_AND_PIECES, "user_defined_symbols": ["\u2581\u2581"]}
    data = tokenizer_models.trained(**options, add_dummy_prefix=False)
    (folder / "tokenizer.model").write_bytes(data)
    (folder / "added_tokens.json").write_text(json.dumps({"<tool>": 319}))
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"additional_special_tokens": ["<tool>"]})
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    keys = keys_of(folder)
    tokens, types = keys["ggml.tokens"], keys["ggml.token_type"]
    found = dict(zip(tokens, types, strict=True))
    assert keys["ggml.model"] == "llama"
    assert keys["ggml.add_space_prefix"] is False
    assert (found["<unk>"], found["<s>"], found["<0x41>"], found["e"]) == (2, 3, 6, 1)
    assert (found["  "], found["<tool>"]) == (4, 3)
    assert keys["ggml.scores"][tokens.index("e")] == processor.get_score(tokens.index("e"))


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        ("always", "begin with a space"),
        ("first", "what comes after an added token"),
        ("never", ""),
    ],
)
def test_spaces_that_llama_cpp_puts_otherwise(tmp_path: Path, scheme: str, said: str) -> None:
    tokenizer = tokenizer_models.pieces(320, scheme)
    folder = hf_folders.write(tmp_path / "model", tokenizer=tokenizer)
    warned = run("quantize", folder, tmp_path / "a.gguf").stderr
    assert (f"{folder / 'tokenizer.json'}" in warned) == bool(said)
    assert said in warned


def test_symbols_of_a_tokenizer_model(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model", tokenizer=hf_folders.pieces())
    (folder / "tokenizer.json").unlink()
    options = {**tokenizer_models.BYTES_AND_PIECES, "user_defined_symbols": ["<tool>"]}
    (folder / "tokenizer.model").write_bytes(tokenizer_models.trained(**options))
    warned = run("quantize", folder, tmp_path / "a.gguf").stderr
    assert "tokenizer.model" in warned
    assert "after a token that the user defined" in warned
