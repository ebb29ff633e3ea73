"""What predictions of a text come to, by numpy, as an oracle of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pyarrowquant import Evaluation


@dataclass(frozen=True)
class Tolerances:
    """How far figures may be from the oracle's: relative, but for the agreement of tokens."""

    divergence: float
    divergence_99: float
    top_agreement: float


def assert_figures(
    found: object,
    result: np.ndarray,
    reference: np.ndarray,
    behind: np.ndarray,
    context: int,
    tolerances: Tolerances,
) -> None:
    """Compare with logarithms of probabilities of both models, and the tokens that came."""
    assert isinstance(found, Evaluation)
    p, q = reference, result
    rows = np.arange(len(behind))
    divergences = (np.exp(p) * (p - q)).sum(axis=1)
    assert (found.tokens, found.context) == (len(behind), context)
    assert found.perplexity == pytest.approx(np.exp(-q[rows, behind].mean()), rel=1e-4)
    assert found.reference_perplexity == pytest.approx(np.exp(-p[rows, behind].mean()), rel=1e-4)
    assert found.divergence == pytest.approx(divergences.mean(), rel=tolerances.divergence)
    percentile = np.percentile(divergences, 99)
    assert found.divergence_99 == pytest.approx(percentile, rel=tolerances.divergence_99)
    same = (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert found.top_agreement == pytest.approx(same, rel=0, abs=tolerances.top_agreement)
    assert 0.0001 < found.divergence < found.divergence_99
