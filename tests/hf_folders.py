"""Small folders of Hugging Face models, with random weights and tokenizers of a few tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROWS = 320  # of embeddings
COLUMNS = 256
SPECIAL = ("<|begin|>", "<|end|>")
TEXT = ("The quick brown fox jumps over 12 lazy dogs; it's a well-known pangram. " * 3,)
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": ROWS,
    "hidden_size": COLUMNS,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "bos_token_id": ROWS - 2,
    "eos_token_id": ROWS - 1,
}


def llama(layers: int = 2, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Tensors as LlamaForCausalLM has them."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (rows, COLUMNS),
        "model.norm.weight": (COLUMNS,),
        "lm_head.weight": (rows, COLUMNS),
    }
    for layer in range(layers):
        for name, shape in {
            "self_attn.q_proj": (COLUMNS, COLUMNS),
            "self_attn.k_proj": (64, COLUMNS),
            "self_attn.v_proj": (64, COLUMNS),
            "self_attn.o_proj": (COLUMNS, COLUMNS),
            "mlp.gate_proj": (512, COLUMNS),
            "mlp.up_proj": (512, COLUMNS),
            "mlp.down_proj": (COLUMNS, 512),
            "input_layernorm": (COLUMNS,),
            "post_attention_layernorm": (COLUMNS,),
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return weights(shapes)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(shape, np.float32) * np.float32(0.05)
        for name, shape in shapes.items()
    }


def bpe(pre_tokenizer: Any = None, rows: int = ROWS, **model: Any) -> Tokenizer:
    """A tokenizer of bytes with a few merges, by default one that splits texts as Llama 3 does."""
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = split(LLAMA_3) if pre_tokenizer is None else pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=rows - len(SPECIAL), initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def split(*expressions: str) -> Any:
    splits = [pre_tokenizers.Split(Regex(each), "isolated") for each in expressions]
    return pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def pieces(rows: int = ROWS, prepend: bool = True) -> Tokenizer:
    """A tokenizer like those that transformers makes of sentencepiece's."""
    letters = sorted({letter for text in TEXT for letter in text.replace(" ", "\u2581")})
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    merges = [("\u2581", "T"), ("h", "e"), ("\u2581T", "he")]
    texts += [first + second for first, second in merges]
    assert len(texts) <= rows
    vocabulary = {text: number for number, text in enumerate(texts)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    steps: list[Any] = [normalizers.Prepend("\u2581")] if prepend else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def model_type_of(classes: Any) -> str:
    """What config.json calls most models of a class, as gpt_oss of GptOssForCausalLM."""
    first = str(classes[0] if isinstance(classes, list) and classes else classes)
    return re.sub(
        r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"(For.*|LMHead)?Model$|For[A-Z].*", "", first)
    ).lower()


def write(
    folder: Path,
    tensors: Mapping[str, np.ndarray] | None = None,
    tokenizer: Tokenizer | None = None,
    without: Sequence[str] = (),
    **config: Any,
) -> Path:
    """Write a folder; keywords change the config, and `without` are keys that it lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = llama() if tensors is None else tensors
    embeddings = tensors.get("model.embed_tokens.weight")
    rows = ROWS if embeddings is None else len(embeddings)
    said = {**CONFIG, "vocab_size": rows, **config}
    said = {"model_type": model_type_of(said["architectures"]), **said}
    said = {key: value for key, value in said.items() if key not in without}
    (folder / "config.json").write_text(json.dumps(said))
    save_file(dict(tensors), folder / "model.safetensors")
    tokenizer = bpe() if tokenizer is None else tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))
    named: dict[str, Any] = {"chat_template": "{{ x }}"}
    for key, texts in {"bos_token": ("<|begin|>", "<s>"), "eos_token": ("<|end|>", "</s>")}.items():
        known = [text for text in texts if tokenizer.token_to_id(text) is not None]
        named[key] = known[0] if known else None
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder
