"""Folders whose config.json does not say what model it is, which engines look up by that."""

from __future__ import annotations

import warnings

from pyarrowquant.errors import users_level
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.model import Model

_WAY_OUT = 'Add the one of the published model, such as "model_type": "llama"'


def model_type_problem(model: Model) -> str | None:
    """Say why mlx-lm finds no code for the model of a folder, and the way out."""
    if model.folder is None or (model.config or {}).get("model_type"):
        return None
    path = model.folder.within(CONFIG)
    return f"'{path}' has no model_type, by which mlx-lm finds the code of a model. {_WAY_OUT}"


def warn_of_no_model_type(model: Model) -> None:
    """Warn of a folder that transformers loads by the name of its class alone."""
    config = model.config or {}
    if model.folder is None or config.get("model_type") or config.get("auto_map"):
        return
    warnings.warn(
        f"'{model.folder.within(CONFIG)}' has no model_type: neither AutoModel of transformers nor "
        f"vLLM loads the model, and what it is like is not known. {_WAY_OUT}",
        UserWarning,
        stacklevel=users_level(),
    )
