"""What the process does at signals: in short steps that they do not break off, and with engines."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def unhindered() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM within the context: what is done in it takes but a moment."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # Other threads get no signals; and Python cannot put back what other code has set (None).
    if threading.current_thread() is not threading.main_thread() or None in before.values():
        yield
        return
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def handled_as_before(number: signal.Signals) -> Iterator[None]:
    """Keep what the process does at a signal, which an engine changes within the context."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(number, before)
