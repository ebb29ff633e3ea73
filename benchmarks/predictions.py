"""Predictions of a GGUF model on a text, kept, and how those of other files differ from them.

What `pyarrowquant.evaluate` measures, with the float model computed once for many files, and from
fewer computed tokens: those behind the first `SKIPPED` of each window are all predicted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyarrowquant.evaluation.distributions import divergence, log_probabilities
from pyarrowquant.evaluation.llama_cpp import (
    LanguageModel,
    Log,
    Logits,
    Vocabulary,
    import_llama_cpp,
)

CONTEXT = 256
SKIPPED = 32


@dataclass(frozen=True)
class Compared:
    """How the predictions of a file differ from those of the float model."""

    perplexity: float
    divergence: float
    divergence_99: float
    top_agreement: float


class Reference:
    """What a model predicts, in a file.

    Attributes
    ----------
    tokens : int
        How many are predicted.
    perplexity : float
    """

    def __init__(self, model: Path, text: str, predictions: int, folder: Path) -> None:
        llama_cpp = import_llama_cpp()
        with Log(llama_cpp) as log, closing(Vocabulary(llama_cpp, str(model), log)) as vocabulary:
            found = vocabulary.tokenized(text.encode())
            first = vocabulary.first_token()
        windows = -(-predictions // (CONTEXT - SKIPPED - 1))
        if len(found) < windows * CONTEXT:
            raise ValueError(f"{len(found)} tokens of text are less than {windows * CONTEXT}")
        self._windows = found[: windows * CONTEXT].reshape(windows, CONTEXT)
        if first is not None:
            self._windows[:, 0] = first
        self.tokens = windows * (CONTEXT - SKIPPED - 1)
        self._known: np.memmap | None = None
        losses = []
        for number, (logits, token) in enumerate(self._predictions(model)):
            row = log_probabilities(logits)
            if self._known is None:
                shape = (self.tokens, len(row))
                self._known = np.memmap(folder / "known", np.float32, "w+", shape=shape)
            self._known[number] = row
            losses.append(-row[token])
        self.perplexity = math.exp(math.fsum(losses) / self.tokens)

    def compared(self, model: Path) -> Compared:
        assert self._known is not None
        losses, divergences, same = [], [], 0
        for number, (logits, token) in enumerate(self._predictions(model)):
            row, known = log_probabilities(logits), self._known[number]
            losses.append(-row[token])
            divergences.append(divergence(known.astype(np.float64), row))
            same += bool(row.argmax() == known.argmax())
        return Compared(
            math.exp(math.fsum(losses) / self.tokens),
            math.fsum(divergences) / self.tokens,
            float(np.percentile(divergences, 99)),
            same / self.tokens,
        )

    def _predictions(self, path: Path) -> Iterator[tuple[Logits, int]]:
        """Give the logits of each token that is predicted, and which one it is."""
        llama_cpp = import_llama_cpp()
        with (
            Log(llama_cpp) as log,
            closing(LanguageModel(llama_cpp, str(path), CONTEXT, 1, log)) as model,
        ):
            for window in self._windows:
                for part in model.predicted_behind(SKIPPED, window.tolist()):
                    following = window[part.begin + 1 : part.end + 1]
                    yield from zip(part.logits, following.tolist(), strict=True)
