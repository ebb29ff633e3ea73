"""What distributions of the next token come to, token by token."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]


def log_probabilities(logits: npt.NDArray[np.float32]) -> _Floats:
    """Return the logarithms of the probabilities of one distribution."""
    found = logits.astype(np.float64)
    found -= found.max()
    found -= math.log(np.exp(found).sum())
    return found


def divergence(reference: _Floats, result: _Floats) -> float:
    """Return the Kullback-Leibler divergence, reference || result, in nats."""
    probabilities = np.exp(reference)
    possible = probabilities > 0  # others add nothing, also where both logarithms are -inf
    if possible.all():
        return float(probabilities @ (reference - result))
    return float(probabilities[possible] @ (reference[possible] - result[possible]))
