"""Perplexity of a model, and how far its predictions are from those of another."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyarrowquant._core import arguments
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
from pyarrowquant.reading.location import locate, open_file
from pyarrowquant.reading.text import read_text

_Path = str | os.PathLike[str]
_USUAL_CONTEXT = 512  # as llama-perplexity has it
_LEAST_CONTEXT = 8
_MAGIC = b"GGUF"


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


def evaluate(
    result: _Path,
    text: _Path,
    *,
    against: _Path | None = None,
    context: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Let llama.cpp predict a text with a GGUF model, and with the one it was made from.

    The text is cut into windows as `llama-perplexity` does it: each begins with the token that the
    model wants at the beginning, if any; tokens of its second half are predicted; what is left at
    the end is not used. Needs the extra ``pyarrowquant[evaluate]``.

    Memory holds the models, the tokens, and the logits of 128 tokens.

    Parameters
    ----------
    result : str or path
        A GGUF model with its tokenizer.
    text : str or path
        A file of UTF-8 text: what the model is for, and thousands of tokens of it.
    against : str or path, optional
        The GGUF model to compare with, of the same vocabulary, as of float16.
    context : int, optional
        Tokens of a window; default 512, or what the models take if that is less.
    threads : int, optional
        Default: the CPUs of this process.
    progress : callable, optional
        Gets how many tokens are done, and of how many, after each part of a window.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        llama.cpp does not run a model, the vocabularies differ, the text is too short or no UTF-8,
        or an argument is out of bounds.
    FileNotFoundError
    ImportError
        The extra is not installed.
    """
    paths = [_model_path(path) for path in (result, against) if path is not None]
    if context is not None:
        context = arguments.at_least(_LEAST_CONTEXT, "context", context)
    threads = arguments.at_least(1, "threads", arguments.thread_count(threads))
    arguments.check_callback("progress", "two numbers of tokens", progress)
    words = _read(text)
    llama_cpp = import_llama_cpp()
    with ExitStack() as stack:
        log = stack.enter_context(Log(llama_cpp))
        llama_cpp.llama_backend_init()
        tokens, first, context = _prepared(llama_cpp, paths, log, words, context, str(text))
        models = [
            stack.enter_context(closing(LanguageModel(llama_cpp, path, context, threads, log)))
            for path in paths
        ]
        run = _Run(models, paths)
        windows = len(tokens) // context
        for number in range(windows):
            window = tokens[number * context : (number + 1) * context].tolist()
            if first is not None:
                window[0] = first
            for done in run.predict(window):
                if progress is not None:
                    progress(number * context + done, windows * context)
    return run.evaluation(context)


def _model_path(path: _Path) -> str:
    """Return the path of a GGUF file, as far as its first bytes tell."""
    location = locate(path, None)
    if not location.is_local:
        raise ValueError(f"{location}: llama.cpp runs files of this machine only; download it")
    if not location.is_file():
        raise ValueError(f"{location} is a folder; give a GGUF file")
    with open_file(location) as file:
        start = file.buffer(0, min(len(_MAGIC), file.size)).to_pybytes()
    if start != _MAGIC:
        raise ValueError(
            f"{location}: no GGUF file. Only models that llama.cpp runs are evaluated; "
            "`pyarrowquant quantize FOLDER x.gguf` makes one of a Hugging Face folder"
        )
    return location.path


def _read(path: _Path) -> bytes:
    data = read_text(path)
    if len(data) >= 2**31:
        raise ValueError(
            f"{path}: the text has {len(data)} bytes, llama.cpp takes less than {2**31}. Give a "
            "part of it"
        )
    return data


def _prepared(
    llama_cpp: Any, paths: list[str], log: Log, text: bytes, context: int | None, text_path: str
) -> tuple[Any, int | None, int]:
    """Return the tokens, what windows begin with, and how long these are.

    All is checked here that can be without weights.
    """
    with ExitStack() as stack:
        found = [stack.enter_context(closing(Vocabulary(llama_cpp, path, log))) for path in paths]
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
                f"Invalid context: {context}. {paths[-1]} takes up to {longest} tokens"
            )
        tokens = reference.tokenized(text)
        if len(tokens) < context:
            raise ValueError(
                f"{text_path}: the text has {len(tokens)} tokens, and a window {context}. Give a "
                "longer text, or a smaller context="
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
    tokens: int = 0
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0])
    same: int = 0
    divergences: list[float] = field(default_factory=list)

    def predict(self, window: list[int]) -> Any:
        """Predict the second half of a window; yield how many tokens are done."""
        for model in self.models:
            model.begin()
        first = len(window) // 2
        # behind the last token there is none to predict
        for start in range(0, len(window) - 1, BATCH):
            end = min(start + BATCH, len(window) - 1)
            wanted = max(first - start, 0)
            logits = [model.logits(window[start:end], start, wanted) for model in self.models]
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
