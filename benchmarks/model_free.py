"""Quantize a model with llm-compressor: python model_free.py SOURCE TARGET SCHEME."""

from __future__ import annotations

import sys

from llmcompressor import model_free_ptq

model_free_ptq(
    sys.argv[1],
    sys.argv[2],
    scheme=sys.argv[3],
    ignore=["lm_head", "re:.*embed_tokens"],
    max_workers=2,
    device="cpu",
)
