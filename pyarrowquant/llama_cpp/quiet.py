"""gguf without what it writes to standard error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGER = "metadata"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep gguf from telling what it assumes; errors it raises."""
    logger = logging.getLogger(_LOGGER)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
