"""By what the columns of matrices are divided, so that they are alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pyarrowquant._core.results import Floats
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.stored import Stored, numbers
from pyarrowquant.rescaling.links import Link

_ROUNDS = 4
_MOST_ROWS = 4096  # of all matrices of a link; more do not change much
_LEAST_ROWS = 16  # of each
_MOST_WEIGHTS = 2**24
_MOST_EXPONENT = 4


def factors(link: Link, stored: Mapping[str, Stored]) -> Floats:
    """Measure the factors of a link: powers of two, about as large as columns are.

    As in SINQ (arXiv 2509.22944), rows and columns are normalized in turns, so that columns are
    measured by what they are beside the rest of their rows. Every step rounds alike on all
    processors, so that a run which is continued elsewhere finds the same factors.
    """
    squares = np.concatenate(list(_sampled(link, stored)))
    across = np.ascontiguousarray(squares.T)
    sizes = np.ones(link.size, np.float32)
    for _ in range(_ROUNDS):
        columns = link.of_columns(sizes)
        rows = np.add.reduce(across / columns[:, None], axis=0)
        rows[rows == 0] = 1
        found = np.add.reduce(squares / rows[:, None], axis=0)
        sizes = found.reshape(-1, link.copies, link.head).sum(axis=1).reshape(-1)
        if not np.isfinite(sizes).all():  # as some weights are not, which is told where they are
            return np.ones(link.size, np.float32)
        usual = np.median(sizes)
        if usual == 0:
            return np.ones(link.size, np.float32)
        sizes = np.where(sizes == 0, usual, sizes) / usual
    # Nearest powers of two, by the squares: 2^(2k-1) to 2^(2k+1) has 2^k.
    exponents = np.frexp(sizes)[1] // 2
    exponents = np.clip(exponents, -_MOST_EXPONENT, _MOST_EXPONENT)
    powers: Floats = np.ldexp(np.float32(1), exponents)
    return powers


def _sampled(link: Link, stored: Mapping[str, Stored]) -> list[Array]:
    """Return the squares of some rows of the matrices, from all parts of them."""
    columns = link.size * link.copies
    most = min(_MOST_ROWS, _MOST_WEIGHTS // columns) // len(link.measured)
    found = []
    for name in link.measured:
        one = stored[name]
        step = -(-one.tensor.shape[0] // max(most, _LEAST_ROWS))
        weights = numbers(one.part(slice(None, None, step)), one.tensor.dtype)
        found.append(weights * weights)
    return found
