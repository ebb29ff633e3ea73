"""GGUF models whose keys contradict their tensors, which llama.cpp does not load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import text_models

Tensors = dict[str, np.ndarray]
ROWS = len(text_models.TOKENS)


def _cut(tensors: Tensors) -> None:
    """Leave out the last block."""
    for name in [name for name in tensors if name.startswith("blk.1.")]:
        del tensors[name]


def _grown(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith("blk.1.")]:
        tensors[name.replace("blk.1.", "blk.2.")] = tensors[name]


def _narrow(tensors: Tensors) -> None:
    tensors["token_embd.weight"] = np.ones((ROWS, 32), np.float32)


def _padded(tensors: Tensors) -> None:
    for name in ("token_embd.weight", "output.weight"):
        tensors[name] = np.concatenate([tensors[name], tensors[name][:3]])


# What is changed, and what is said of it.
KINDS: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "cut": (_cut, "its llama.block_count is 2, and its last block is blk.0"),
    "grown": (_grown, "its llama.block_count is 2, and its last block is blk.2"),
    "narrow": (
        _narrow,
        "its llama.embedding_length is 64, and 'token_embd.weight' has 32 columns",
    ),
    "padded": (
        _padded,
        f"its tokenizer.ggml.tokens are {ROWS}, and 'token_embd.weight' has {ROWS + 3} rows",
    ),
}


def saved(path: Path, kind: str) -> Path:
    tensors = text_models.weights()
    KINDS[kind][0](tensors)
    return text_models.saved(path, tensors)
