"""Tables of tokens, of which memory holds the rows that are used."""

from __future__ import annotations

import mmap
import sys
from functools import partial
from math import prod
from typing import Any

import torch
from torch import nn

from pyarrowquant.calibration.deferred import Deferred


def give_tables(model: Any) -> None:
    """Give a model those that turn tokens to vectors and back, if they are deferred.

    A row is read when its token comes. Those that give logits stay empty.
    """
    for weights in {id(each): each for each in _tables_of(model)}.values():
        users = [
            (module, name)
            for module in model.modules()
            for name, each in module.named_parameters(recurse=False)
            if each is weights
        ]
        output = model.get_output_embeddings()
        others = [each for each, _ in users if not isinstance(each, nn.Embedding)]
        if any(each is not output for each in others):
            continue
        table = nn.Parameter(_untouched(weights), requires_grad=False)
        for module, name in users:
            setattr(module, name, table)
            if isinstance(module, nn.Embedding):
                module.register_forward_pre_hook(partial(_fill, weights))


def _tables_of(model: Any) -> list[Deferred]:
    try:
        modules = model.get_input_embeddings(), model.get_output_embeddings()
    except NotImplementedError:  # of models that have several of either
        return []
    weights = (getattr(module, "weight", None) for module in modules)
    return [each for each in weights if isinstance(each, Deferred)]


def _fill(weights: Deferred, module: Any, args: Any) -> None:
    tokens = args[0].unique()
    module.weight[tokens] = weights.rows(tokens)


def _untouched(like: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose pages get memory when something is written to them."""
    memory = mmap.mmap(-1, prod(like.shape) * like.element_size())
    if sys.platform == "linux" and hasattr(mmap, "MADV_NOHUGEPAGE"):
        # Those would get memory for many rows at once.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=like.dtype).reshape(like.shape)
