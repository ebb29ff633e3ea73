"""What a real model puts out when its weights are replaced by decoded ones.

SentenceModel takes decoded weights of any origin: those of a quantizer, or of a whole recipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from quality_report import Output
from quantizer import THREADS, Quantizer, Weights, check
from sentences import sentences
from workloads import model_folder


class SentenceModel:
    """all-MiniLM-L6-v2 and the embeddings of sentences that it makes with its own weights.

    Parameters
    ----------
    number : int or None
        Take so many of the sentences; all by default.
    """

    def __init__(self, number: int | None = None) -> None:
        folder = model_folder()
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        torch.set_num_threads(THREADS)
        self.model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.linear = {
            f"encoder.{name}.weight": module.weight
            for name, module in self.model.encoder.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        step = 1 if number is None else max(1, len(sentences()) // number)
        self.tokens = AutoTokenizer.from_pretrained(folder)(
            sentences()[::step], padding=True, return_tensors="pt"
        )
        self.reference = self.embed()

    def weights(self) -> Weights:
        """Copies of the encoder's linear weights, by the names in the model's file."""
        return {name: weight.detach().numpy().copy() for name, weight in self.linear.items()}

    def embed(self) -> np.ndarray:
        """Embeddings of the sentences, one a row, of length 1."""
        import torch

        with torch.inference_mode():
            hidden = self.model(**self.tokens).last_hidden_state
            mask = self.tokens["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            return torch.nn.functional.normalize(mean).numpy()

    @contextmanager
    def replaced(self, decoded: Weights) -> Iterator[None]:
        """Run with these weights; names that are missing keep the model's own."""
        import torch

        own = {name: self.linear[name].detach().clone() for name in decoded}

        def put(weights: dict[str, Any]) -> None:
            with torch.no_grad():
                for name, weight in weights.items():
                    self.linear[name].copy_(weight)

        try:
            put({name: torch.tensor(array) for name, array in decoded.items()})
            yield
        finally:
            put(own)

    def cosines(self, decoded: Weights) -> np.ndarray:
        """For each sentence, the cosine of its two embeddings."""
        with self.replaced(decoded):
            return np.sum(self.embed() * self.reference, axis=1)

    def output_of(self, quantizer: Quantizer) -> Output:
        weights = self.weights()
        checked = check(quantizer.prepare(weights), weights)
        cosines = self.cosines(checked.decoded)
        return Output(
            quantizer.family,
            quantizer.name,
            checked.bits,
            float(cosines.mean()),
            float(cosines.min()),
        )
