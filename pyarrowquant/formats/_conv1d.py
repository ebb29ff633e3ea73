"""Models whose layers are Conv1D, of transposed weights, which engines know of float ones alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MODEL_TYPES = frozenset({"clvp", "decision_transformer", "gpt2", "imagegpt", "openai-gpt"})


def has_conv1d(config: Mapping[str, Any]) -> bool:
    """Whether the layers of such a model are Conv1D, whose rows are the inputs."""
    return config.get("model_type") in _MODEL_TYPES


def refuse_conv1d(config: Mapping[str, Any], path: object, what: str) -> None:
    """Raise for such a model.

    Parameters
    ----------
    config : mapping
        What config.json says.
    path : object
        Of config.json, for the error.
    what : str
        What an engine does, as a sentence without an end.
    """
    if has_conv1d(config):
        raise ValueError(
            f"'{path}' has model_type '{config['model_type']}', whose layers are Conv1D: {what}. "
            "Take another format, such as ONNX"
        )
