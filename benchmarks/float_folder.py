"""Hugging Face folders of language models, whose weights are floats on no grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gguf_tokenizer import tokenizer_of
from language_models import MODELS, float_model, text


def float_folder(model: str, folder: Path) -> Path:
    """Write a model of language_models.py with float32 weights, and its tokenizer.

    Norms of 16 bits would keep factors from being moved into them.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    source = float_model(MODELS[model](folder), folder / "m.gguf")
    said: dict[str, Any] = {"gguf_file": source.name}
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **said)
    target = folder / "model"
    tokenizer_of(source, text()).save_pretrained(target)
    head = "lm_head.weight"  # which is the embeddings
    weights = {name: one for name, one in loaded.state_dict().items() if name != head}
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    config = loaded.config.to_dict() | {"tie_word_embeddings": True, "dtype": "float32"}
    config.pop("quantization_config", None)
    config["architectures"] = [type(loaded).__name__]
    (target / "config.json").write_text(json.dumps(config))
    return target
