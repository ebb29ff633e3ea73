"""Ways of quantizing the linear layers of a language model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from quantizer import Quantizer, Weights, count
from subject import Subject


@dataclass(frozen=True)
class Outcome:
    """A quantized model.

    Attributes
    ----------
    weights : dict of str to array
        Decoded weights, and other tensors that are not as they were.
    bits : float
        Stored for a weight of a linear layer.
    seconds : float
        Of processors, with what importance took where it is used.
    """

    weights: Weights
    bits: float
    seconds: float


@dataclass(frozen=True)
class Candidate:
    """A method with its settings.

    Attributes
    ----------
    calibrated : bool
        Whether it sees a text.
    quantize : callable
        Raises UnavailableError (or ImportError) if it cannot run here.
    """

    maker: str
    settings: str
    calibrated: bool
    quantize: Callable[[Subject], Outcome]


def of_matrices(
    maker: str,
    settings: str,
    quantizer: Callable[[Subject], Quantizer],
    *,
    calibrated: bool = False,
    rescaled: bool = False,
) -> Candidate:
    """A candidate that quantizes each matrix by itself."""

    def quantize(subject: Subject) -> Outcome:
        started = time.process_time()
        taken = subject.rescaled() if rescaled else subject
        seconds = time.process_time() - started + (subject.seconds if calibrated else 0)
        prepared = quantizer(taken).prepare(taken.linear)
        started = time.process_time()
        result = prepared.call()
        seconds += time.process_time() - started
        bits = prepared.stored_bits(result) / count(taken.linear)
        return Outcome({**taken.others, **prepared.decode(result)}, bits, seconds)

    return Candidate(maker, settings, calibrated, quantize)
