"""Prints what vLLM computes for a model folder: log probabilities of all tokens after each token.

python vllm_logprobs.py FOLDER '[token, token, ...]'
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vllm import LLM, SamplingParams


def main() -> None:
    folder, said = sys.argv[1:]
    tokens = json.loads(said)
    vocabulary = json.loads(Path(folder, "config.json").read_text())["vocab_size"]
    model = LLM(
        model=folder,
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=128,
        max_logprobs=vocabulary,
        dtype="bfloat16",
    )
    sampling = SamplingParams(max_tokens=4, detokenize=False, prompt_logprobs=vocabulary)
    (done,) = model.generate([{"prompt_token_ids": tokens}], sampling)
    rows = [
        [step[token].logprob for token in range(vocabulary)] for step in done.prompt_logprobs[1:]
    ]
    assert len(done.outputs[0].token_ids) == 4
    print("\nLOGPROBS", json.dumps(rows))


if __name__ == "__main__":
    main()
