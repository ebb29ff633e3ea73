"""What a language model predicts with other weights, by transformers in float32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from predictions import CONTEXT, SKIPPED, Compared
from quantizer import Weights

from pyarrowquant.calibration.texts import before_text


def windows_of(tokenizer: Any, text: str, tokens: int, count: int | None = None) -> list[list[int]]:
    """Cut a text into windows that begin as texts begin for a model; all whole ones, or some."""
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    before = before_text(tokenizer(text)["input_ids"], plain)
    step = tokens - len(before)
    starts = range(0, len(plain) - step + 1, step)
    return [before + plain[start : start + step] for start in starts[:count]]


class Judge:
    """A float model, and what it predicts of a text.

    Attributes
    ----------
    linear : dict of str to array
        The weights of linear layers but the head.
    tokens : int
        How many tokens are predicted: those behind the first of each window.
    perplexity : float
    """

    def __init__(self, folder: Path, text: str, predictions: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._weights = {
            name: weight.detach().clone() for name, weight in self._model.named_parameters()
        }
        head = self._model.get_output_embeddings()
        self.linear: Weights = {
            f"{name}.weight": module.weight.detach().numpy().copy()
            for name, module in self._model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
        windows = -(-predictions // (CONTEXT - SKIPPED - 1))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self._windows = torch.tensor(windows_of(tokenizer, text, CONTEXT, windows))
        self._known = [self._predicted(window) for window in self._windows]
        self.tokens = sum(map(len, self._known))
        losses = map(_loss, self._known, self._windows)
        self.perplexity = math.exp(math.fsum(losses) / self.tokens)

    def compared(self, weights: Weights) -> Compared:
        """Predict with these weights; those that are missing stay the model's own."""
        self._put(weights)
        divergences, losses, same = [], [], 0
        for window, known in zip(self._windows, self._known, strict=True):
            found = self._predicted(window)
            divergences.append((known.exp() * (known - found)).sum(dim=-1).double().numpy())
            losses.append(_loss(found, window))
            same += int((found.argmax(dim=-1) == known.argmax(dim=-1)).sum())
        divergence = np.concatenate(divergences)
        return Compared(
            math.exp(math.fsum(losses) / self.tokens),
            float(divergence.mean()),
            float(np.percentile(divergence, 99)),
            same / self.tokens,
        )

    def _put(self, weights: Weights) -> None:
        import torch

        with torch.no_grad():
            for name, own in self._model.named_parameters():
                own.copy_(
                    torch.from_numpy(weights[name]) if name in weights else self._weights[name]
                )

    def _predicted(self, window: Any) -> Any:
        """Logarithms of the probabilities of the token behind each that is not skipped."""
        import torch

        with torch.inference_mode():
            logits = self._model(window[None], logits_to_keep=CONTEXT - SKIPPED).logits
            return logits[0, :-1].log_softmax(dim=-1)


def _loss(found: Any, window: Any) -> float:
    return -float(found.gather(1, window[SKIPPED + 1 :, None]).double().sum())
