"""The weights of a folder as tensors that are read, and decoded, when they are used."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from pyarrowquant.calibration.deferred import Deferred
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import CodedTensor
from pyarrowquant.reading.turned import as_floats


def deferred_source(model: Model, model_class: Any) -> dict[str, Any]:
    """Return arguments of from_pretrained of a class of transformers; codes are decoded."""
    config = model_class.config_class.from_pretrained(str(model.folder))  # also with Infinity
    for part in (config, config.get_text_config()):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    return {
        "pretrained_model_name_or_path": None,
        "config": config,
        "state_dict": _deferred_weights(model),
    }


def decoded_source(model: Model, model_class: Any) -> dict[str, Any]:
    """Return the same with tensors that are read and decoded already."""
    source = deferred_source(model, model_class)
    weights = {name: weight.made() for name, weight in source["state_dict"].items()}
    return {**source, "state_dict": weights}


def _deferred_weights(model: Model) -> dict[str, Deferred]:
    """Return what a float checkpoint of a model has."""
    found = {}
    tensors = {tensor.name: tensor for tensor in as_floats(model).all_tensors}
    for path in model.files:
        with safe_open(str(path), framework="pt") as file:  # whose tensors are mapped
            for name in file.keys():  # noqa: SIM118, as it is no mapping
                if name in tensors and not isinstance(tensors[name], CodedTensor):
                    source = file.get_tensor(name)
                    found[name] = Deferred.of(source, partial(_same, source), name)
    for name, tensor in tensors.items():
        if isinstance(tensor, CodedTensor):
            like = torch.empty(tensor.shape, dtype=torch.float32, device="meta")
            found[name] = Deferred.of(like, partial(_decoded, tensor), name)
    return found


def _same(source: torch.Tensor) -> torch.Tensor:
    return source


def _decoded(tensor: CodedTensor) -> torch.Tensor:
    return torch.from_numpy(np.require(tensor.decode(), requirements="W"))
