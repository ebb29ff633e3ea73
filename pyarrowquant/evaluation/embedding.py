"""How alike the embeddings are that two models give passages of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyarrowquant.evaluation.counting import DONE, RUNNING, Tell

Embedding = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EmbeddingEvaluation:
    """How alike the embeddings of two models are.

    Attributes
    ----------
    passages : int
        How many were embedded.
    tokens : int
        Of all passages, with special ones.
    context : int
        The most tokens of a passage.
    cosine : float
        The mean of the cosine of both models' embeddings, passage by passage.
    least_cosine : float
    """

    passages: int
    tokens: int
    context: int
    cosine: float
    least_cosine: float


class Embedder(Protocol):
    """A model."""

    def embedded(self, passage: Sequence[int]) -> npt.NDArray[Any]:
        """Return the embedding of a passage, or vectors of its tokens, whose mean that is."""
        ...


def compare_embeddings(
    models: Sequence[Embedder],
    paths: Sequence[str],
    passages: Sequence[Sequence[int]],
    context: int,
    tell: Tell,
) -> EmbeddingEvaluation:
    """Embed all passages by two models."""
    done, total = 0, sum(map(len, passages))
    cosines = []
    for number, passage in enumerate(passages, 1):
        units = []
        for model, path in zip(models, paths, strict=True):
            tell(RUNNING, path)
            units.append(_unit(model.embedded(passage), path, number))
        result, reference = units
        if len(result) != len(reference):
            raise ValueError(
                f"Embeddings of '{paths[0]}' have {len(result)} numbers, those of '{paths[1]}' "
                f"{len(reference)}. Give the model that the first one was made from"
            )
        cosines.append(float(result @ reference))
        done += len(passage)
        tell(DONE, (done, total))
    mean = math.fsum(cosines) / len(cosines)
    return EmbeddingEvaluation(len(passages), total, context, mean, min(cosines))


def _unit(found: npt.NDArray[Any], path: str, number: int) -> Embedding:
    """Return an embedding of length 1."""
    vector: Embedding = found.astype(np.float64)
    if vector.ndim == 2:
        vector = vector.mean(axis=0)
    length = float(np.linalg.norm(vector))
    if not (math.isfinite(length) and length > 0):
        what = "0" if length == 0 else "NaN or Inf"
        raise ValueError(
            f"{path}: the embedding of passage {number} is {what}; weights of it are damaged, or "
            "too large"
        )
    return vector / length
