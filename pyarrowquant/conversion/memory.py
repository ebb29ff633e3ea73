"""How much of a model is read at a time, so that a run stays within a size of memory."""

from __future__ import annotations

from pyarrowquant._core import arguments
from pyarrowquant.errors import UsageError

_ITSELF = 128 * 2**20  # Python, its packages and the Go runtime take up to this
_LEAST_BATCH = 2**20
OUTCOMES_BESIDE = 2  # batches whose results are being written, or wait to be
_BATCHES = 2 + OUTCOMES_BESIDE
_LEAST = _ITSELF + _BATCHES * _LEAST_BATCH


def batch_bytes(max_memory: int) -> int:
    """Bound on a batch of weights.

    It can be in memory itself, with as many bytes of results, and those of the batches before it.
    """
    size = arguments.integer("max_memory", max_memory)
    if size < _LEAST:
        raise UsageError(f"max_memory={size} is too little; the least is {-(-_LEAST // 2**20)}MiB")
    return (size - _ITSELF) // _BATCHES


def most_decoded(batch_bytes: int) -> int:
    """Bound on a batch of layers that were decoded, with the next one, which is decoded then.

    Results of what was decoded are far smaller, and so leave room for the next one.
    """
    return 2 * batch_bytes
