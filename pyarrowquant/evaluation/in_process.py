"""Models that run in this process: found to be of a kind, loaded, and run on a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pyarrowquant.errors import UsageError
from pyarrowquant.evaluation.counting import Evaluation, Predictor, Run, Tell
from pyarrowquant.evaluation.embedding import Embedder, EmbeddingEvaluation, compare_embeddings
from pyarrowquant.evaluation.request import Request
from pyarrowquant.evaluation.tokens import Tokenizer, check_same, passages_of, windows_of


class Loaded(Predictor, Embedder, Protocol):
    """A model with its weights, which does one of both."""


class Found(Protocol):
    """A model, before its weights are loaded.

    Attributes
    ----------
    path : str
    predicts : bool
        Whether it predicts the next token; others give embeddings.
    longest_context : int
    """

    path: str
    predicts: bool
    longest_context: int

    def tokenizer(self) -> Tokenizer: ...

    def load(self, threads: int) -> Loaded: ...


def run_on_text(
    request: Request, models: Sequence[Found], tell: Tell
) -> Evaluation | EmbeddingEvaluation:
    """Let models predict the text, or embed passages of it.

    All is checked before weights are loaded that can be.
    """
    predicts = _check_kinds(models)
    tokenizers = [model.tokenizer() for model in models]
    check_same(tokenizers, request.paths)
    longest = min(model.longest_context for model in models)
    if predicts:
        cut = windows_of(request, tokenizers[-1], longest)
        loaded = [model.load(request.threads) for model in models]
        return Run(loaded, request.paths, tell).over(cut)
    passages, context = passages_of(request, tokenizers[-1], longest)
    loaded = [model.load(request.threads) for model in models]
    return compare_embeddings(loaded, request.paths, passages, context, tell)


def _check_kinds(models: Sequence[Found]) -> bool:
    """Return whether models predict tokens."""
    first, last = models[0], models[-1]
    if first.predicts != last.predicts:
        predicting, embedding = (first, last) if first.predicts else (last, first)
        raise ValueError(
            f"'{predicting.path}' predicts the next token, and '{embedding.path}' gives "
            "embeddings; give two models of a kind"
        )
    if not first.predicts and len(models) == 1:
        raise UsageError(
            f"'{first.path}' gives embeddings, which say nothing by themselves: give the model "
            "that it was made from by against="
        )
    return first.predicts
