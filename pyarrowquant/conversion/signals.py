"""Short steps that a signal does not break off."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def unhindered() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM within the context: what is done in it takes but a moment."""
    if threading.current_thread() is not threading.main_thread():  # which has no signals
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
