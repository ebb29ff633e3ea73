"""A checkpoint of the shape of a Llama model, with random weights in bfloat16."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

HIDDEN, INTERMEDIATE, KEYS, VOCABULARY, HEAD = 2048, 5632, 256, 32000, 64
_LAYERS_A_SHARD = 5


def make_checkpoint(folder: Path, layers: int) -> int:
    """Write the folder; returns the bytes of its weights.

    Parameters
    ----------
    folder : Path
        Is made.
    layers : int
        Of 88 MB each; embeddings and head take 262 MB more.
    """
    rng = np.random.default_rng(0)
    block = rng.standard_normal(HIDDEN * INTERMEDIATE, np.float32) * 0.02
    return _write(folder, layers, lambda file, shape: file.write(_weights(shape, block, rng).data))


def sparse_checkpoint(folder: Path, layers: int) -> int:
    """Write the same with weights of 0, which take no room on the disk."""
    return _write(folder, layers, lambda file, shape: _skip(file, 2 * math.prod(shape)))


def _skip(file: IO[bytes], size: int) -> int:
    file.truncate(file.seek(size, os.SEEK_CUR))
    return size


def _write(folder: Path, layers: int, write: Callable[[IO[bytes], tuple[int, ...]], int]) -> int:
    folder.mkdir(parents=True)
    count = -(-layers // _LAYERS_A_SHARD)
    weight_map: dict[str, str] = {}
    size = 0
    for shard in range(count):
        first = shard * _LAYERS_A_SHARD
        blocks = range(first, min(first + _LAYERS_A_SHARD, layers))
        name = f"model-{shard + 1:05d}-of-{count:05d}.safetensors"
        shapes = dict(_shapes(blocks, shard == 0, shard == count - 1))
        with (folder / name).open("wb") as file:
            file.write(_header(shapes))
            for shape in shapes.values():
                size += write(file, shape)
        weight_map |= dict.fromkeys(shapes, name)
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(_config(layers)))
    return size


def _shapes(
    blocks: range, with_embedding: bool, with_head: bool
) -> Iterator[tuple[str, tuple[int, ...]]]:
    if with_embedding:
        yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for i in blocks:
        for name, shape in {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (KEYS, HIDDEN),
            "self_attn.v_proj": (KEYS, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
            "mlp.up_proj": (INTERMEDIATE, HIDDEN),
            "mlp.down_proj": (HIDDEN, INTERMEDIATE),
            "input_layernorm": (HIDDEN,),
            "post_attention_layernorm": (HIDDEN,),
        }.items():
            yield f"model.layers.{i}.{name}.weight", shape
    if with_head:
        yield "model.norm.weight", (HIDDEN,)
        yield "lm_head.weight", (VOCABULARY, HIDDEN)


def _header(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """What a safetensors file begins with."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _weights(shape: tuple[int, ...], block: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random weights, made from one block with another beginning and sign each time."""
    if len(shape) == 1:
        return np.full(shape, 0x3F80, np.uint16)
    values = np.resize(np.roll(block, int(rng.integers(block.size))), shape)
    bits = values.view(np.uint32) ^ np.uint32(int(rng.integers(2)) << 31)
    return (bits + 0x8000 >> 16).astype(np.uint16)


def _config(layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": HIDDEN // HEAD,
        "num_key_value_heads": KEYS // HEAD,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
