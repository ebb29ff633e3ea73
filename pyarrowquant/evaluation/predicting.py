"""A text predicted by models, in the process in which llama.cpp runs."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.evaluation.counting import (
    RUNNING,
    Cut,
    Evaluation,
    Run,
    Tell,
    check_length,
    differing_vocabularies,
)
from pyarrowquant.evaluation.llama_cpp import LanguageModel, Log, Vocabulary, import_llama_cpp
from pyarrowquant.evaluation.request import Request
from pyarrowquant.reading.positions import usual_context


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
        cut = _cut(llama_cpp, request, log, tell)
        models = []
        for path in request.paths:
            tell(RUNNING, path)
            model = LanguageModel(llama_cpp, path, cut.context, request.threads, log)
            models.append(stack.enter_context(closing(model)))
        return Run(models, request.paths, tell).over(cut)


def _cut(llama_cpp: Any, request: Request, log: Log, tell: Tell) -> Cut:
    """Cut the text into windows. All is checked here that can be without weights."""
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
        context = usual_context(request.context, longest, reference.path)
        tokens = reference.tokenized(request.text)
        check_length(len(tokens), context, request.text_path)
        first = reference.first_token()
        return Cut(tokens.tolist(), [] if first is None else [first], context)


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
    raise differing_vocabularies(other.path, reference.path, problem)


def _token(text: bytes) -> str:
    return quoted(text.decode(errors="replace"))
