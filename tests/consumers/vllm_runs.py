"""What vLLM predicts for a folder, and what transformers does with the weights it decodes to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import transformers
from safetensors.torch import load_file, save_file

from pyarrowquant import read_weights

PROGRAM = Path(__file__).with_name("vllm_logprobs.py")
TOKENS = [5, 17, 100, 33, 250, 7, 61, 2]
# How far log probabilities may be from those that transformers gives with the decoded weights, in
# parts of their spread; of activations in 8 bits, which transformers does not round there, the
# bound is wider.
SAME, ROUNDED = 0.02, 0.2
# What kernels the processor has; vLLM itself reads it so.
PROCESSOR = Path("/proc/cpuinfo").read_text()
Predicted = npt.NDArray[np.float32]


def saved(folder: Path, model: transformers.PreTrainedModel) -> Path:
    """Save a model with random weights, of a size that makes for sharp predictions."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or name.endswith(".bias"):
                parameter.normal_(std=0.08)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


@cache
def of_vllm(folder: Path, kernels: str = "own") -> Predicted:
    """Log probabilities of all tokens after each one but the last.

    Parameters
    ----------
    folder : Path
    kernels : str
        As `vllm_logprobs` has them. vLLM has its state in the process: each model gets one.
    """
    # kernels of zentorch and AMX round activations to 8 bits, which experts are not run without
    rounds = "1" if kernels == "zen" else "0"
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_INT4_W4A8": rounds,
    }
    done = subprocess.run(
        [sys.executable, PROGRAM, folder, json.dumps(TOKENS), kernels],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("LOGPROBS "))
    return np.array(json.loads(line.removeprefix("LOGPROBS ")), np.float32)


def of_transformers(folder: Path) -> Predicted:
    """The same of a folder of floats."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.no_grad():
        logits = loaded(torch.tensor([TOKENS])).logits[0, :-1].float()
    return torch.log_softmax(logits, -1).numpy()


def with_decoded(model: Path, quantized: Path, folder: Path) -> Path:
    """A copy of the model with the weights that the quantized folder decodes to."""
    tensors = load_file(model / "model.safetensors")
    for row in pa.Table.from_batches(read_weights(quantized)).to_pylist():
        dtype = {"F32": torch.float32, "BF16": torch.bfloat16}[row["dtype"]]
        weights = torch.frombuffer(bytearray(row["weights"]), dtype=dtype)
        assert row["layer_name"] in tensors
        tensors[row["layer_name"]] = weights.reshape(row["shape"]).to(torch.bfloat16)
    shutil.copytree(model, folder)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def distance(found: Predicted, wanted: Predicted) -> float:
    return float(np.sqrt(np.mean((found - wanted) ** 2)) / np.std(wanted))


def check(found: Predicted, wanted: Predicted, bound: float) -> None:
    """Check that predictions are alike, and that others would not be."""
    assert distance(found, wanted) < bound
    assert distance(np.roll(wanted, 1, axis=1), wanted) > 3 * ROUNDED
