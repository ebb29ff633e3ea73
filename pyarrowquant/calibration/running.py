"""Models of transformers, run on windows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer

from pyarrowquant.calibration.inputs import InputSquares, Squares


def tokens_of(folder: str, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Return what a model's tokenizer puts before each text, and the tokens of each."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    with_special = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    first = list(with_special[: with_special.index(plain[0])]) if plain else []
    return first, tokens


def load(folder: str, architecture: str) -> Any:
    """Load a model as float32, in which processors compute fastest."""
    loaded = getattr(transformers, architecture).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    return loaded.eval()


def measured(
    model: Any,
    windows: Sequence[Sequence[int]],
    threads: int,
    progress: Callable[[int, int], object],
) -> Mapping[str, Squares]:
    """Run a model, and return what its parameters are multiplied with."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    total, done = sum(map(len, windows)), 0
    try:
        inputs = InputSquares(model.named_parameters())
        with torch.inference_mode(), inputs:
            for window in windows:
                ids = torch.tensor([window])
                more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
                try:
                    model(input_ids=ids, **more)
                except (AttributeError, TypeError, ValueError) as error:
                    raise ValueError(
                        f"{type(model).__name__} does not run on tokens of text alone ({error}); "
                        "models that take sound or images cannot be calibrated"
                    ) from error
                done += len(window)
                progress(done, total)
        return inputs.found
    finally:
        torch.set_num_threads(before)
