"""Weights that mlx-lm multiplies or divides when it loads them, which codes are not made for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.rule import Rule

_MULTIPLIED = frozenset({"falcon_h1"})
_CONVOLUTION = re.compile(r"(.+\.)?conv1d\.weight", re.DOTALL)
# Models whose heads have rows of length 1: always, and where norm_head says so.
_NORMED = frozenset({"baichuan_m1"})
_MAY_BE_NORMED = frozenset({"bailing_moe", "bailing_moe_linear"})
FLOAT_HEAD = Rule(match="lm_head.weight", skip=True, reason="heads that mlx-lm scales")


def scales_head(config: Mapping[str, Any]) -> bool:
    """Whether mlx-lm scales the head of a model with this config.json."""
    kind = config.get("model_type")
    return kind in _NORMED or (kind in _MAY_BE_NORMED and bool(config.get("norm_head")))


def refuse_multiplied(model: Model) -> None:
    """Raise for a folder of which mlx-lm multiplies all layers.

    It takes convolutions as it has them itself for a sign that they are multiplied already.
    """
    if model.folder is None or (kind := (model.config or {}).get("model_type")) not in _MULTIPLIED:
        return
    for tensor in model.tensors or ():
        if _CONVOLUTION.fullmatch(tensor.name) and tensor.shape[-1] > tensor.shape[1]:
            raise ValueError(
                f"'{model.folder.within(CONFIG)}' has model_type '{kind}', whose layers mlx-lm "
                "multiplies when it loads them, as if codes were weights. Take another format, "
                "such as compressed-tensors, or the folder of floats of mlx_lm.convert"
            )
