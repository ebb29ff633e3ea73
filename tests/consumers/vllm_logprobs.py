"""Prints what vLLM computes for a model folder: log probabilities of all tokens after each token.

python vllm_logprobs.py FOLDER '[token, token, ...]' own|zen|decoding
The kernels are those of the CPU that vLLM itself has, those of zentorch, or ones that decode.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def engine(kernels: str, **settings: Any) -> Any:
    """Return a model with these kernels, which are chosen while vLLM is imported."""
    if kernels != "zen":
        sys.modules["zentorch"] = None  # type: ignore[assignment]
    if kernels == "decoding":
        import vllm_decoding
        import vllm_decoding_experts

        vllm_decoding.take_these()
        vllm_decoding_experts.take_these()
    import vllm

    return vllm.LLM(**settings)


def main() -> None:
    folder, said, kernels = sys.argv[1:]
    tokens = json.loads(said)
    vocabulary = json.loads(Path(folder, "config.json").read_text())["vocab_size"]
    model = engine(
        kernels,
        model=folder,
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=128,
        max_logprobs=vocabulary,
        dtype="bfloat16",
    )
    from vllm import SamplingParams

    sampling = SamplingParams(max_tokens=4, detokenize=False, prompt_logprobs=vocabulary)
    (done,) = model.generate([{"prompt_token_ids": tokens}], sampling)
    rows = [
        [step[token].logprob for token in range(vocabulary)] for step in done.prompt_logprobs[1:]
    ]
    assert len(done.outputs[0].token_ids) == 4
    print("\nLOGPROBS", json.dumps(rows))


if __name__ == "__main__":
    main()
