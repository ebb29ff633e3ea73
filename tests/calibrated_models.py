"""Small random models with tokenizers, as folders that `calibrate` runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hf_folders
import torch
import transformers

TEXT = "The quick brown fox jumps over 12 lazy dogs; it's a well-known pangram. " * 40
SIZES: dict[str, Any] = {
    "vocab_size": hf_folders.ROWS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
MODELS = {
    "LlamaForCausalLM": SIZES,
    "Qwen3MoeForCausalLM": {
        **SIZES,
        "moe_intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "norm_topk_prob": True,
    },
    "MixtralForCausalLM": {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Gemma3ForCausalLM": {**SIZES, "head_dim": 16},  # whose embeddings are scaled, and tied
    "BertForMaskedLM": SIZES,
    "FalconForCausalLM": SIZES,  # which multiplies by turned weights
    "GPTNeoXForCausalLM": SIZES,  # whose head has another name in files
    "GraniteMoeForCausalLM": {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
}


def saved(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """Save a small random model, with a tokenizer that begins no text; return it as float32."""
    torch.manual_seed(3)
    model_class = getattr(transformers, kind)
    model = model_class(model_class.config_class(**MODELS[kind])).eval()
    for parameter in model.parameters():  # so that inputs of columns differ
        parameter.data *= torch.rand(parameter.shape[-1:]) + 0.5
    model.to(dtype).save_pretrained(folder)
    save_tokenizer(folder)
    return model_class.from_pretrained(
        folder, dtype=torch.float32, experts_implementation="eager"
    ).eval()


def save_tokenizer(folder: Path) -> None:
    hf_folders.bpe().save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast"}  # which splits as tokenizer.json says
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
