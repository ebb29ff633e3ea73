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
from llama_cpp import Llama, llama_cpp

from pyarrowquant import (
    convert,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch_arrow,
    read_weights,
)
from pyarrowquant.formats import write_gguf

VOCABULARY, HEADS, KEYS, BLOCKS = 96, 4, 2, 2
TOKENS = list(range(1, 24))


@pytest.fixture(autouse=True)
def without_other_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let weights stay as they are: llama.cpp 0.3.36 crashes where it repacks them for AMX."""
    default = llama_cpp.llama_model_default_params

    def parameters() -> Any:
        found = default()
        found.use_extra_bufts = False
        return found

    monkeypatch.setattr(llama_cpp, "llama_model_default_params", parameters)


def metadata(hidden: int = 64) -> dict[str, Any]:
    return {**METADATA, "llama.embedding_length": hidden, "llama.feed_forward_length": 2 * hidden}


METADATA: dict[str, Any] = {
    "llama.context_length": 64,
    "llama.block_count": BLOCKS,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KEYS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.vocab_size": VOCABULARY,
    "tokenizer.ggml.model": "no_vocab",
}


def model(hidden: int = 64) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Make the matrices of the blocks, and all other tensors."""
    rng = np.random.default_rng(0)
    matrices, others = {}, {}
    head, intermediate = hidden // HEADS, 2 * hidden
    shapes = {
        "attn_q": (hidden, hidden),
        "attn_k": (KEYS * head, hidden),
        "attn_v": (KEYS * head, hidden),
        "attn_output": (hidden, hidden),
        "ffn_gate": (intermediate, hidden),
        "ffn_up": (intermediate, hidden),
        "ffn_down": (hidden, intermediate),
    }
    for block in range(BLOCKS):
        for name, shape in shapes.items():
            weights = rng.standard_normal(shape, np.float32) / np.float32(shape[1] ** 0.5)
            matrices[f"blk.{block}.{name}.weight"] = weights
        for name in ("attn_norm", "ffn_norm"):
            others[f"blk.{block}.{name}.weight"] = np.ones(hidden, np.float32)
    for name in ("token_embd", "output"):
        others[f"{name}.weight"] = rng.standard_normal((VOCABULARY, hidden), np.float32)
    others["output_norm.weight"] = np.ones(hidden, np.float32)
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
    check_runs(result, matrices, others, tmp_path, 64, least_cosine)


@pytest.mark.parametrize(
    ("encoding", "least_cosine"),
    [
        ("q2_k", 0.75),
        ("q3_k", 0.93),
        ("q4_k", 0.98),
        ("q5_k", 0.995),
        ("q6_k", 0.998),
        ("iq4_nl", 0.98),
        ("iq4_xs", 0.98),
        ("mxfp4", 0.95),
    ],
)
def test_llama_cpp_runs_encodings(tmp_path: Path, encoding: str, least_cosine: float) -> None:
    matrices, others = model(256)
    table = numpy_to_arrow_table(matrices)
    result = quantize_batch_arrow(table, encoding=encoding, method="mse")
    check_runs(result, matrices, others, tmp_path, 256, least_cosine)


def check_runs(
    result: Any,
    matrices: dict[str, np.ndarray],
    others: dict[str, np.ndarray],
    folder: Path,
    hidden: int,
    least_cosine: float,
) -> None:
    """Compare what llama.cpp computes with packed, with decoded and with float weights."""
    decoded = {
        row["layer_name"]: np.float32(row["weights"]).reshape(row["shape"])
        for row in dequantize_batch_arrow(result).to_pylist()
    }
    options: dict[str, Any] = {"architecture": "llama", "metadata": metadata(hidden)}
    write_gguf(result, folder / "packed.gguf", unquantized=numpy_to_arrow_table(others), **options)
    for name, weights in (("decoded", decoded), ("float", matrices)):
        kept = numpy_to_arrow_table({**others, **weights})
        write_gguf(result.slice(0, 0), folder / f"{name}.gguf", unquantized=kept, **options)
    packed = logits(folder / "packed.gguf")
    # ggml rounds activations to 8 bits where weights are quantized
    assert cosine(packed, logits(folder / "decoded.gguf")) > 0.9995
    assert cosine(packed, logits(folder / "float.gguf")) > least_cosine


@pytest.mark.parametrize(
    "options", [[], ["--bits", "5", "--zero-point", "integer"], ["--recipe", "Q5_K_M"]]
)
def test_a_model_of_llama_cpp_quantized_by_the_command_line(
    tmp_path: Path, options: list[str]
) -> None:
    hidden = 64 if "--bits" in options else 256
    matrices, others = model(hidden)
    nothing = quantize_batch_arrow(
        numpy_to_arrow_table(matrices),
        4,
        group_size=32,
        zero_point="symmetric",
        scale_dtype="float16",
    ).slice(0, 0)
    source, target = tmp_path / "model.gguf", tmp_path / "small.gguf"
    kept = numpy_to_arrow_table({**others, **matrices})
    write_gguf(nothing, source, unquantized=kept, architecture="llama", metadata=metadata(hidden))
    command = [sys.executable, "-m", "pyarrowquant", "quantize", str(source), str(target)]
    subprocess.run([*command, *options], check=True)
    assert target.stat().st_size < source.stat().st_size / 2
    assert cosine(logits(target), logits(source)) > 0.98


@pytest.mark.parametrize("recipe", ["Q4_K_M", "MXFP4_MOE", "Q6_K"])
def test_llama_cpp_runs_quantized_experts(tmp_path: Path, recipe: str) -> None:
    rng = np.random.default_rng(1)
    matrices, others = model(256)
    for block in range(BLOCKS):
        for name in ("gate", "up", "down"):
            shape = (4, *matrices.pop(f"blk.{block}.ffn_{name}.weight").shape)
            stack = rng.standard_normal(shape, np.float32) / np.float32(shape[2] ** 0.5)
            matrices[f"blk.{block}.ffn_{name}_exps.weight"] = stack
        others[f"blk.{block}.ffn_gate_inp.weight"] = rng.standard_normal((4, 256), np.float32)
    # all experts are used, as an error would choose others
    said = {**metadata(256), "llama.expert_count": 4, "llama.expert_used_count": 4}
    options: dict[str, Any] = {"architecture": "llama", "metadata": said}
    nothing = quantize_batch_arrow(numpy_to_arrow_table(matrices), encoding="q6_k").slice(0, 0)
    kept = numpy_to_arrow_table({**others, **matrices})
    write_gguf(nothing, tmp_path / "model.gguf", unquantized=kept, **options)
    done = convert(tmp_path / "model.gguf", tmp_path / "small.gguf", recipe=recipe)
    assert "ffn_down_exps" not in str(done.unquantized)
    decoded = read_weights(tmp_path / "small.gguf").read_all()
    write_gguf(nothing, tmp_path / "decoded.gguf", unquantized=decoded, **options)
    packed = logits(tmp_path / "small.gguf")
    assert cosine(packed, logits(tmp_path / "decoded.gguf")) > 0.999
    assert cosine(packed, logits(tmp_path / "model.gguf")) > 0.9
