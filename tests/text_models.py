"""Small random language models with a tokenizer, as GGUF files, written by gguf itself."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

HIDDEN, HEADS, BLOCKS = 64, 4, 2
_TYPES = gguf.TokenType
# One token for each byte, behind those that SentencePiece always has, and some words.
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581the", "an"]


def weights(seed: int = 0, vocabulary: int = len(TOKENS)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {
        "attn_q": (HIDDEN, HIDDEN),
        "attn_k": (HIDDEN, HIDDEN),
        "attn_v": (HIDDEN, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN),
        "ffn_gate": (2 * HIDDEN, HIDDEN),
        "ffn_up": (2 * HIDDEN, HIDDEN),
        "ffn_down": (HIDDEN, 2 * HIDDEN),
    }
    found = {"output_norm.weight": np.ones(HIDDEN, np.float32)}
    for name in ("token_embd", "output"):
        found[f"{name}.weight"] = rng.standard_normal((vocabulary, HIDDEN), np.float32)
    found["output.weight"] /= np.float32(HIDDEN**0.5)
    for block in range(BLOCKS):
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{block}.{name}.weight"] = np.ones(HIDDEN, np.float32)
        for name, shape in shapes.items():
            scale = np.float32(shape[1] ** -0.5)
            found[f"blk.{block}.{name}.weight"] = rng.standard_normal(shape, np.float32) * scale
    return found


def saved(
    path: Path,
    tensors: dict[str, np.ndarray] | None = None,
    tokens: list[str] | None = TOKENS,
    context: int = 64,
    causal: bool = True,
) -> Path:
    """Write a model; without tokens one that knows their numbers alone."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    if not causal:
        writer.add_causal_attention(False)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(2 * HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS if tokens is None else tokens))
    if tokens is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        kinds = [_TYPES.UNKNOWN, _TYPES.CONTROL, _TYPES.CONTROL, *[_TYPES.BYTE] * 256]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([-float(i) for i in range(len(tokens))])
        writer.add_token_types(kinds + [_TYPES.NORMAL] * (len(tokens) - len(kinds)))
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(True)
    for name, array in (weights() if tensors is None else tensors).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
