"""The process in which llama.cpp runs: a request comes in, and what becomes of it goes out."""

from __future__ import annotations

import os
import pickle
import signal
import sys

from pyarrowquant.evaluation.predicting import predict
from pyarrowquant.evaluation.request import Request

FOUND, FAILED = "found", "failed"  # an Evaluation, and an exception


def main() -> None:
    """Do what the process that started this one asks for.

    Answers are pairs of what is told, and a value.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process gets it, too, and ends this
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # llama.cpp may print

    def tell(what: str, value: object) -> None:
        pickle.dump((what, value), answers)
        answers.flush()

    request = pickle.load(sys.stdin.buffer)
    assert isinstance(request, Request)
    try:
        tell(FOUND, predict(request, tell))
    except Exception as error:
        tell(FAILED, error)
