"""What predictions of a text come to, whatever runs the models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyarrowquant.evaluation.distributions import divergence, log_probabilities

RUNNING, DONE = "running", "done"  # the path of the model that runs, and two numbers of tokens

Logits = npt.NDArray[np.float32]
Tell = Callable[[str, Any], object]


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text.

    Attributes
    ----------
    tokens : int
        How many were predicted.
    context : int
        Tokens of a window.
    perplexity : float
    reference_perplexity : float or None
        Of the model it is compared with; this and what follows is None without one.
    divergence : float or None
        The mean of the Kullback-Leibler divergence of the distribution of the next token from that
        of the reference, in nats.
    divergence_99 : float or None
        Its 99th percentile.
    top_agreement : float or None
        The part of the tokens for which both have the same most probable one.
    """

    tokens: int
    context: int
    perplexity: float
    reference_perplexity: float | None
    divergence: float | None
    divergence_99: float | None
    top_agreement: float | None


@dataclass(frozen=True)
class Cut:
    """A text as windows of tokens.

    Attributes
    ----------
    tokens : sequence of int
        Of the text, with what the model wants around it.
    before : list of int
        What each window begins with, in the place of its own first tokens.
    context : int
        Tokens of a window.
    """

    tokens: Sequence[int]
    before: list[int]
    context: int

    @property
    def count(self) -> int:
        """How many windows there are; what is left at the end is none."""
        return len(self.tokens) // self.context

    def windows(self) -> Iterator[list[int]]:
        for begin in range(0, self.count * self.context, self.context):
            window = list(self.tokens[begin : begin + self.context])
            window[: len(self.before)] = self.before
            yield window


def check_length(tokens: int, context: int, text_path: str) -> None:
    if tokens < context:
        raise ValueError(
            f"{text_path}: the text has {tokens} tokens, and a window {context}. Give a longer "
            "text, or a smaller context="
        )


def differing_vocabularies(path: str, reference: str, problem: str) -> ValueError:
    return ValueError(
        f"The vocabularies of '{path}' and '{reference}' differ: {problem}. Give the model that "
        "the first one was made from"
    )


@dataclass(frozen=True)
class Part:
    """Predictions of some tokens of a window.

    Attributes
    ----------
    begin : int
        The place of the first token that the model read, of those whose logits these are.
    end : int
        The place of the last token that is predicted.
    logits : array
        A row for each of `end - begin` tokens; it may change with the next part.
    """

    begin: int
    end: int
    logits: Logits


class Predictor(Protocol):
    """A model."""

    def predicted(self, window: Sequence[int]) -> Iterator[Part]:
        """Predict the second half of a window. All models give the same parts."""
        ...


@dataclass
class Run:
    """Counts predictions, of a model or of two."""

    models: Sequence[Predictor]
    paths: list[str]
    tell: Tell
    tokens: int = 0
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0])
    same: int = 0
    divergences: list[float] = field(default_factory=list)

    def over(self, cut: Cut) -> Evaluation:
        """Predict all windows of a text."""
        total = cut.count * cut.context
        for number, window in enumerate(cut.windows()):
            for done in self._predict(window):
                self.tell(DONE, (number * cut.context + done, total))
        return self._evaluation(cut.context)

    def _predict(self, window: list[int]) -> Iterator[int]:
        """Predict the second half of a window; yield how many tokens are done."""
        runs = [model.predicted(window) for model in self.models]
        while True:
            parts = []
            for run, path in zip(runs, self.paths, strict=True):
                self.tell(RUNNING, path)
                parts.append(next(run, None))
            known = [part for part in parts if part is not None]
            if not known:
                return
            begin, end = known[0].begin, known[0].end
            for row, token in enumerate(window[begin + 1 : end + 1]):
                self._add([part.logits[row] for part in known], token)
            yield end + 1 if end == len(window) - 1 else end

    def _add(self, logits: list[Logits], token: int) -> None:
        self.tokens += 1
        found = [log_probabilities(each) for each in logits]
        for i, (each, path) in enumerate(zip(found, self.paths, strict=True)):
            if token >= len(each):
                raise ValueError(
                    f"{path}: gives logits of {len(each)} tokens, and the text has token {token}: "
                    "take the tokenizer that came with the model"
                )
            if math.isnan(each[token]):
                raise ValueError(
                    f"{path}: predicts NaN for token {self.tokens}; weights of it are damaged, or "
                    "too large"
                )
            self.losses[i] -= float(each[token])
        if len(found) == 2:
            result, reference = found
            if len(result) != len(reference):
                raise differing_vocabularies(
                    self.paths[0],
                    self.paths[1],
                    f"logits of {len(result)} tokens, and of {len(reference)}",
                )
            self.divergences.append(divergence(reference, result))
            self.same += bool(result.argmax() == reference.argmax())

    def _evaluation(self, context: int) -> Evaluation:
        perplexity, of_reference = (_exp(loss / self.tokens) for loss in self.losses)
        if not self.divergences:
            return Evaluation(self.tokens, context, perplexity, None, None, None, None)
        return Evaluation(
            self.tokens,
            context,
            perplexity,
            of_reference,
            math.fsum(self.divergences) / self.tokens,
            float(np.percentile(self.divergences, 99)),
            self.same / self.tokens,
        )


def _exp(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
