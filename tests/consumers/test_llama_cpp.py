"""GGUF files that llama.cpp loads and runs.

These need llama-cpp-python, which is compiled when it is installed, so `make test-llama-cpp` runs
them in an environment of their own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama

from pyarrowquant import dequantize_batch_arrow, numpy_to_arrow_table, quantize_batch_arrow
from pyarrowquant.formats import write_gguf

HIDDEN, INTERMEDIATE, VOCABULARY, HEADS, KEYS, BLOCKS = 64, 128, 96, 4, 2, 2
TOKENS = list(range(1, 24))
METADATA: dict[str, Any] = {
    "llama.context_length": 64,
    "llama.embedding_length": HIDDEN,
    "llama.block_count": BLOCKS,
    "llama.feed_forward_length": INTERMEDIATE,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KEYS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.vocab_size": VOCABULARY,
    "tokenizer.ggml.model": "no_vocab",
}


def model() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Make the matrices of the blocks, and all other tensors."""
    rng = np.random.default_rng(0)
    matrices, others = {}, {}
    head = HIDDEN // HEADS
    shapes = {
        "attn_q": (HIDDEN, HIDDEN),
        "attn_k": (KEYS * head, HIDDEN),
        "attn_v": (KEYS * head, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN),
        "ffn_gate": (INTERMEDIATE, HIDDEN),
        "ffn_up": (INTERMEDIATE, HIDDEN),
        "ffn_down": (HIDDEN, INTERMEDIATE),
    }
    for block in range(BLOCKS):
        for name, shape in shapes.items():
            weights = rng.standard_normal(shape, np.float32) / np.float32(shape[1] ** 0.5)
            matrices[f"blk.{block}.{name}.weight"] = weights
        for name in ("attn_norm", "ffn_norm"):
            others[f"blk.{block}.{name}.weight"] = np.ones(HIDDEN, np.float32)
    for name in ("token_embd", "output"):
        others[f"{name}.weight"] = rng.standard_normal((VOCABULARY, HIDDEN), np.float32)
    others["output_norm.weight"] = np.ones(HIDDEN, np.float32)
    return matrices, others


def logits(path: Path) -> np.ndarray:
    llama = Llama(str(path), n_ctx=64, n_threads=2, logits_all=True, verbose=False)
    llama.eval(TOKENS)
    found = np.array(llama.scores[: len(TOKENS)])
    llama.close()
    return found


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("bits", "zero_point", "least_cosine"),
    [
        (4, "symmetric", 0.98),
        (4, "float", 0.98),
        (5, "symmetric", 0.99),
        (5, "integer", 0.99),
        (8, "symmetric", 0.9995),
    ],
)
def test_llama_cpp_runs_the_decoded_weights(
    tmp_path: Path, bits: int, zero_point: str, least_cosine: float
) -> None:
    matrices, others = model()
    result = quantize_batch_arrow(
        numpy_to_arrow_table(matrices),
        bits,
        group_size=32,
        method="mse",
        zero_point=zero_point,
        scale_dtype="float16",
    )
    decoded = {
        row["layer_name"]: np.float32(row["weights"]).reshape(row["shape"])
        for row in dequantize_batch_arrow(result).to_pylist()
    }
    options: dict[str, Any] = {"architecture": "llama", "metadata": METADATA}
    write_gguf(result, tmp_path / "packed.gguf", kept=numpy_to_arrow_table(others), **options)
    for name, weights in (("decoded", decoded), ("float", matrices)):
        kept = numpy_to_arrow_table({**others, **weights})
        write_gguf(result.slice(0, 0), tmp_path / f"{name}.gguf", kept=kept, **options)
    packed = logits(tmp_path / "packed.gguf")
    # ggml rounds activations to 8 bits where weights are quantized
    assert cosine(packed, logits(tmp_path / "decoded.gguf")) > 0.9995
    assert cosine(packed, logits(tmp_path / "float.gguf")) > least_cosine


@pytest.mark.parametrize("options", [[], ["--bits", "5", "--zero-point", "integer"]])
def test_a_model_of_llama_cpp_quantized_by_the_command_line(
    tmp_path: Path, options: list[str]
) -> None:
    matrices, others = model()
    nothing = quantize_batch_arrow(
        numpy_to_arrow_table(matrices),
        4,
        group_size=32,
        zero_point="symmetric",
        scale_dtype="float16",
    ).slice(0, 0)
    source, target = tmp_path / "model.gguf", tmp_path / "small.gguf"
    kept = numpy_to_arrow_table({**others, **matrices})
    write_gguf(nothing, source, kept=kept, architecture="llama", metadata=METADATA)
    command = [sys.executable, "-m", "pyarrowquant", "quantize", str(source), str(target)]
    subprocess.run([*command, *options], check=True)
    assert target.stat().st_size < source.stat().st_size / 2
    assert cosine(logits(target), logits(source)) > 0.98
