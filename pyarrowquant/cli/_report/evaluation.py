"""An evaluation on the page: what `pyarrowquant evaluate --json` printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.evaluation.counting import Evaluation
from pyarrowquant.evaluation.embedding import EmbeddingEvaluation
from pyarrowquant.reading.strict_json import parse_object
from pyarrowquant.reading.text import read_text

_WHOLE = {"tokens", "context", "passages"}
_NO_JSON = {"inf", "nan"}  # as numbers are printed that JSON lacks
_MOST = 2**63
# What each number is called, and how it is shown.
_SHOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "perplexity": ("perplexity", "{:.4f}".format),
    "reference_perplexity": ("perplexity of the reference", "{:.4f}".format),
    "divergence": ("KL divergence, nats", "{:.5f}".format),
    "divergence_99": ("its 99th percentile", "{:.4f}".format),
    "top_agreement": ("the same top token", lambda value: f"{100 * value:.2f} %"),
    "cosine": ("cosine of embeddings", "{:.6f}".format),
    "least_cosine": ("the least cosine", "{:.6f}".format),
    "passages": ("passages", "{:,.0f}".format),
    "tokens": ("tokens", "{:,.0f}".format),
    "context": ("context", "{:,.0f}".format),
}


@dataclass(frozen=True)
class ShownEvaluation:
    """An evaluation.

    Attributes
    ----------
    result : str
        The model, as the user named it then.
    reference : str or None
        The one that it was compared with.
    numbers : dict of str to float
        Those that there are, by the names of `evaluate --json`.
    """

    result: str
    reference: str | None
    numbers: dict[str, float]

    @property
    def rows(self) -> list[tuple[str, str]]:
        """What numbers are called, and how they read."""
        return [
            (title, show(self.numbers[name]))
            for name, (title, show) in _SHOWN.items()
            if name in self.numbers
        ]


def read_evaluation(path: Path) -> ShownEvaluation:
    """Read what `pyarrowquant evaluate --json` printed."""
    said = parse_object(read_text(path), f"'{path}'")
    names = next((each for each in _known() if each == said.keys()), None)
    if names is None:
        raise _no_evaluation(path, "its keys are others")
    result, reference = said["result"], said["reference"]
    if not isinstance(result, str) or not isinstance(reference, (str, type(None))):
        raise _no_evaluation(path, "result and reference are no names")
    return ShownEvaluation(result, reference, _numbers(path, said))


def _known() -> list[set[str]]:
    return [
        {"result", "reference", *(each.name for each in fields(kind))}
        for kind in (Evaluation, EmbeddingEvaluation)
    ]


def _numbers(path: Path, said: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name, value in said.items():
        if name not in _SHOWN or value is None:
            continue
        number = float(value) if isinstance(value, str) and value in _NO_JSON else value
        kinds = (int,) if name in _WHOLE else (int, float)
        if type(number) not in kinds or (type(number) is int and abs(number) >= _MOST):
            raise _no_evaluation(path, f"{name} is {quoted(value)}")
        found[name] = number
    return found


def _no_evaluation(path: Path, problem: str) -> ValueError:
    return ValueError(
        f"'{path}' is no evaluation, as {problem}. Give a file with what `pyarrowquant evaluate "
        "--json` printed"
    )
