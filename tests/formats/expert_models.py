"""Models with experts, as single matrices and as stacks of any layout."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from exports import weights
from safetensors.numpy import save_file

from formats.packed_models import Arrays

EXPERTS, HIDDEN, INNER = 4, 64, 96
BLOCK = "model.layers.0.mlp"
MATRICES = {
    f"{BLOCK}.experts.{expert}.{name}.weight": weights(10 * expert + i, *shape)
    for expert in range(EXPERTS)
    for i, (name, shape) in enumerate(
        {
            "gate_proj": (INNER, HIDDEN),
            "up_proj": (INNER, HIDDEN),
            "down_proj": (HIDDEN, INNER),
        }.items()
    )
}
OTHERS = {
    "model.layers.0.self_attn.q_proj.weight": weights(90, HIDDEN, HIDDEN),
    f"{BLOCK}.gate.weight": weights(91, EXPERTS, HIDDEN),
    f"{BLOCK}.shared_expert_gate.weight": weights(92, 1, HIDDEN),
}


def stack(name: str) -> np.ndarray:
    return np.stack([MATRICES[f"{BLOCK}.experts.{i}.{name}.weight"] for i in range(EXPERTS)])


def stacks(kind: str) -> Arrays:
    """Stacks as models have them: rows, columns, or columns that alternate."""
    gate, up, down = map(stack, ("gate_proj", "up_proj", "down_proj"))
    joined = np.concatenate([gate, up], axis=1)
    if kind == "alternating":
        joined[:, 0::2], joined[:, 1::2] = gate, up
    if kind != "rows":
        joined, down = joined.swapaxes(1, 2), down.swapaxes(1, 2)
    found = {"gate_up_proj": joined, "down_proj": down}
    if kind == "alternating":
        biases = {"gate_up_proj_bias": (EXPERTS, 2 * INNER), "down_proj_bias": (EXPERTS, HIDDEN)}
        found |= {name: weights(7, *shape) for name, shape in biases.items()}
    return {f"{BLOCK}.experts.{name}": np.ascontiguousarray(a) for name, a in found.items()}


def saved(folder: Path, tensors: Arrays, model_type: str, dtype: str = "float32") -> Path:
    folder.mkdir()
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    floats = {name: array.astype(kind) for name, array in {**tensors, **OTHERS}.items()}
    save_file(floats, folder / "model.safetensors")
    config = {"model_type": model_type, "architectures": ["MoeForCausalLM"], "dtype": dtype}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
