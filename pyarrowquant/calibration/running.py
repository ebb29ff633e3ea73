"""Models of transformers, run on windows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import AutoTokenizer

from pyarrowquant.calibration.deferred import Deferred
from pyarrowquant.calibration.inputs import InputSquares, Squares
from pyarrowquant.calibration.layers import Layers
from pyarrowquant.calibration.turns import in_turns

_TOGETHER = 16  # windows whose states are in memory at the same time


def tokens_of(folder: str, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Return what a model's tokenizer puts before each text, and the tokens of each."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    with_special = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    first = list(with_special[: with_special.index(plain[0])]) if plain else []
    return first, tokens


def load(folder: str, architecture: str, files: Sequence[str]) -> Any:
    """Load a model as float32, in which processors compute fastest.

    Weights of files are deferred; without any, all are read.
    """
    loaded_class = getattr(transformers, architecture)
    source: dict[str, Any] = {"pretrained_model_name_or_path": folder}
    if files:
        config = loaded_class.config_class.from_pretrained(folder)
        source = {
            "pretrained_model_name_or_path": None,
            "config": config,
            "state_dict": _deferred(files),
        }
    with Deferred.recording():
        loaded = loaded_class.from_pretrained(
            **source,
            dtype=torch.float32,
            attn_implementation="eager",
            experts_implementation="eager",
        )
    return loaded.eval()


def _deferred(files: Sequence[str]) -> dict[str, Deferred]:
    weights = {}
    for path in files:
        with safe_open(path, framework="pt") as file:  # whose tensors are mapped
            weights.update({name: Deferred.of(file.get_tensor(name)) for name in file.keys()})
    return weights


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
        inputs = InputSquares()
        with torch.inference_mode():
            layers = Layers(model, inputs)
            inputs.output = getattr(model.get_output_embeddings(), "weight", None)
            with inputs:
                for first in range(0, len(windows), _TOGETHER):
                    together = windows[first : first + _TOGETHER]
                    tokens = sum(map(len, together))
                    runs = [partial(_run, model, window) for window in together]
                    for turn, _ in enumerate(in_turns(runs)):
                        progress(done + tokens * min(turn, layers.count) // (layers.count + 1), total)
                    done += tokens
                    progress(done, total)
        return inputs.found
    finally:
        torch.set_num_threads(before)


def _run(model: Any, window: Sequence[int]) -> None:
    ids = torch.tensor([window])
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    try:
        model(input_ids=ids, **more)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{type(model).__name__} does not run on tokens of text alone ({error}); "
            "models that take sound or images cannot be calibrated"
        ) from error
