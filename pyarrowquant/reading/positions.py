"""How many tokens a model takes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

_KEYS = "max_position_embeddings", "n_positions"


def positions_in(config: Mapping[str, Any]) -> int:
    """Return what config.json says, of the part for text if there is one; else no bound."""
    parts = [part for part in (config, config.get("text_config")) if isinstance(part, Mapping)]
    said = [part.get(key) for part in parts for key in _KEYS]
    return min((each for each in said if type(each) is int and each > 0), default=sys.maxsize)
