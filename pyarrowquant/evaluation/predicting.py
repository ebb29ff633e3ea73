"""A text predicted by models, in the process in which llama.cpp runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import UsageError
from pyarrowquant.evaluation.distributions import divergence, log_probabilities
from pyarrowquant.evaluation.llama_cpp import (
    BATCH,
    LanguageModel,
    Log,
    Logits,
    Vocabulary,
    import_llama_cpp,
)

_USUAL_CONTEXT = 512  # as llama-perplexity has it
RUNNING, DONE = "running", "done"  # the path that llama.cpp is given, and two numbers of tokens

Tell = Callable[[str, Any], object]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes
    ----------
    paths : list of str
        Of the model, and of the one to compare it with.
    text : bytes
    text_path : str
        What errors call it.
    context : int or None
        Tokens of a window; None for what is usual.
    threads : int
    """

    paths: list[str]
    text: bytes
    text_path: str
    context: int | None
    threads: int


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


def predict(request: Request, tell: Tell) -> Evaluation:
    """Let llama.cpp predict the text.

    Parameters
    ----------
    request : Request
    tell : callable
        Gets `RUNNING` with the path of a model before llama.cpp does something with it, and `DONE`
        with how many tokens are done, and of how many.
    """
    llama_cpp = import_llama_cpp()
    with ExitStack() as stack:
        log = stack.enter_context(Log(llama_cpp))
        llama_cpp.llama_backend_init()
        tokens, first, context = _prepared(llama_cpp, request, log, tell)
        models = []
        for path in request.paths:
            tell(RUNNING, path)
            model = LanguageModel(llama_cpp, path, context, request.threads, log)
            models.append(stack.enter_context(closing(model)))
        run = _Run(models, request.paths, tell)
        windows = len(tokens) // context
        for number in range(windows):
            window = tokens[number * context : (number + 1) * context].tolist()
            if first is not None:
                window[0] = first
            for done in run.predict(window):
                tell(DONE, (number * context + done, windows * context))
        return run.evaluation(context)


def _prepared(
    llama_cpp: Any, request: Request, log: Log, tell: Tell
) -> tuple[Any, int | None, int]:
    """Return the tokens, what windows begin with, and how long these are.

    All is checked here that can be without weights.
    """
    context = request.context
    with ExitStack() as stack:
        found = []
        for path in request.paths:
            tell(RUNNING, path)
            found.append(stack.enter_context(closing(Vocabulary(llama_cpp, path, log))))
        for vocabulary in found:
            vocabulary.check()
        *others, reference = found
        for other in others:
            _check_same(reference, other)
        longest = min(vocabulary.longest_context for vocabulary in found)
        if context is None:
            context = min(_USUAL_CONTEXT, longest)
        elif context > longest:
            raise UsageError(
                f"Invalid context: {context}. {reference.path} takes up to {longest} tokens"
            )
        tokens = reference.tokenized(request.text)
        if len(tokens) < context:
            raise ValueError(
                f"{request.text_path}: the text has {len(tokens)} tokens, and a window {context}. "
                "Give a longer text, or a smaller context="
            )
        return tokens, reference.first_token(), context


def _check_same(reference: Vocabulary, other: Vocabulary) -> None:
    if reference.size != other.size:
        problem = f"{other.size} tokens, and {reference.size}"
    else:
        pairs = enumerate(zip(other.texts(), reference.texts(), strict=True))
        differing = next(((i, a, b) for i, (a, b) in pairs if a != b), None)
        if differing is None:
            return
        i, ours, theirs = differing
        problem = f"token {i} is {_token(ours)}, and {_token(theirs)}"
    raise ValueError(
        f"The vocabularies of '{other.path}' and '{reference.path}' differ: {problem}. Give the "
        "model that the first one was made from"
    )


def _token(text: bytes) -> str:
    return quoted(text.decode(errors="replace"))


@dataclass
class _Run:
    """Counts predictions, of a model or of two."""

    models: list[LanguageModel]
    paths: list[str]
    tell: Tell
    tokens: int = 0
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0])
    same: int = 0
    divergences: list[float] = field(default_factory=list)

    def predict(self, window: list[int]) -> Iterator[int]:
        """Predict the second half of a window; yield how many tokens are done."""
        for model in self.models:
            model.begin()
        first = len(window) // 2
        # behind the last token there is none to predict
        for start in range(0, len(window) - 1, BATCH):
            end = min(start + BATCH, len(window) - 1)
            wanted = max(first - start, 0)
            logits = []
            for model, path in zip(self.models, self.paths, strict=True):
                self.tell(RUNNING, path)
                logits.append(model.logits(window[start:end], start, wanted))
            for row, token in enumerate(window[start + wanted + 1 : end + 1]):
                self._add([each[row] for each in logits], token)
            yield end + 1 if end == len(window) - 1 else end

    def _add(self, logits: list[Logits], token: int) -> None:
        self.tokens += 1
        found = [log_probabilities(each) for each in logits]
        for i, (each, path) in enumerate(zip(found, self.paths, strict=True)):
            if math.isnan(each[token]):
                raise ValueError(
                    f"{path}: predicts NaN for token {self.tokens}; weights of it are damaged, or "
                    "too large"
                )
            self.losses[i] -= float(each[token])
        if len(found) == 2:
            result, reference = found
            self.divergences.append(divergence(reference, result))
            self.same += bool(result.argmax() == reference.argmax())

    def evaluation(self, context: int) -> Evaluation:
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
