"""Keys of config.json that encoders do not look at, though decoders do."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import hf_folders
import pytest
from commands import succeeded

HEADS, WIDTH, INNER = 8, 256, 512


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layer, attention = "encoder.layer.0.", "encoder.layer.0.attention."
    linear = {
        **{f"{attention}self.{name}": (WIDTH, WIDTH) for name in ("query", "key", "value")},
        f"{attention}output.dense": (WIDTH, WIDTH),
        f"{layer}intermediate.dense": (INNER, WIDTH),
        f"{layer}output.dense": (WIDTH, INNER),
    }
    norms = ("embeddings.", f"{attention}output.", f"{layer}output.")
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (320, WIDTH),
        "embeddings.position_embeddings.weight": (64, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        **{f"{name}.weight": shape for name, shape in linear.items()},
        **{f"{name}.bias": shape[:1] for name, shape in linear.items()},
        **{f"{norm}LayerNorm.{part}": (WIDTH,) for norm in norms for part in ("weight", "bias")},
    }
    return hf_folders.write(
        tmp_path / "model",
        hf_folders.weights(shapes),
        without=["num_key_value_heads", "rms_norm_eps", "rope_theta"],
        architectures=["BertModel"],
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        max_position_embeddings=64,
        layer_norm_eps=1e-12,
        hidden_act="gelu",
        type_vocab_size=2,
    )


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_each_head_of_bert_has_keys_of_its_own(folder: Path, tmp_path: Path, count: int) -> None:
    """As transformers does not look at num_key_value_heads there."""
    plain, other, packed = tmp_path / "plain.gguf", tmp_path / "other.gguf", tmp_path / "packed"
    succeeded("quantize", folder, plain)
    config = json.loads((folder / "config.json").read_text())
    config["num_key_value_heads"] = count
    (folder / "config.json").write_text(json.dumps(config))
    succeeded("quantize", folder, other)
    assert other.read_bytes() == plain.read_bytes()
    assert gguf.GGUFReader(other).fields["bert.attention.head_count_kv"].contents() == HEADS
    succeeded("quantize", folder, packed, "--to", "compressed-tensors")
