"""How many tokens a model takes, and how many it is given at once."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pyarrowquant.errors import UsageError

_USUAL_CONTEXT = 512  # as llama-perplexity has it
_KEYS = "max_position_embeddings", "n_positions"


def positions_in(config: Mapping[str, Any]) -> int:
    """Return what config.json says, of the part for text if there is one; else no bound."""
    parts = [part for part in (config, config.get("text_config")) if isinstance(part, Mapping)]
    said = [part.get(key) for part in parts for key in _KEYS]
    return min((each for each in said if type(each) is int and each > 0), default=sys.maxsize)


def usual_context(context: int | None, longest: int, model: str) -> int:
    """Return how many tokens windows have, given what is asked for and what a model takes."""
    if context is None:
        return min(_USUAL_CONTEXT, longest)
    if context > longest:
        raise UsageError(f"Invalid context: {context}. {model} takes up to {longest} tokens")
    return context
