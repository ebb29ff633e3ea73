"""Weights that are in memory while their layer runs."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from pyarrowquant.calibration.deferred import Deferred
from pyarrowquant.calibration.inputs import InputSquares
from pyarrowquant.calibration.tables import give_tables
from pyarrowquant.calibration.turns import end_turn


@dataclass(frozen=True)
class _Place:
    """Where a module has a deferred tensor; with a name if it is a parameter."""

    module: Any
    attribute: str
    tensor: Deferred
    name: str | None


class Layers:
    """Gives the layers of a model their deferred weights, each layer when it is called.

    Before that, all other functions of `in_turns` come to it, so that it is read once for them.
    What is in no layer stays in memory, but for tables of tokens.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    inputs : InputSquares
        Is told which parameters are in memory.

    Attributes
    ----------
    count : int
    """

    def __init__(self, model: Any, inputs: InputSquares) -> None:
        self._inputs = inputs
        self._loaded: Any = None
        give_tables(model)
        names = {id(each): name for name, each in model.named_parameters()}
        layers = list(_layers_of(model))
        self.count = len(layers)
        self._places = {layer: _places(layer.modules(), names) for layer in layers}
        for layer in layers:
            layer.register_forward_pre_hook(self._before)
        within = {module for layer in layers for module in layer.modules()}
        _give(_places((each for each in model.modules() if each not in within), names))
        for name, parameter in model.named_parameters():
            if not isinstance(parameter, Deferred):
                inputs.add(name, parameter)

    def _before(self, layer: Any, _: Any) -> None:
        end_turn()
        if layer is self._loaded:
            return
        if self._loaded is not None:
            for place in self._places[self._loaded]:
                self._inputs.forget(getattr(place.module, place.attribute))
                setattr(place.module, place.attribute, place.tensor)
            _trim()
        self._loaded = layer
        for name, parameter in _give(self._places[layer]).items():
            self._inputs.add(name, parameter)


def _trim() -> None:
    """Give back what is free between weights, which would add up from layer to layer."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _layers_of(module: Any) -> Iterator[Any]:
    """Give what is in the outermost lists of modules."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for each in child:
                if isinstance(each, nn.ModuleList):
                    yield from _layers_of(each)
                else:
                    yield each
        else:
            yield from _layers_of(child)


def _places(modules: Iterable[Any], names: dict[int, str]) -> list[_Place]:
    return [
        _Place(module, attribute, tensor, names.get(id(tensor)))
        for module in modules
        for own in (module.named_parameters(recurse=False), module.named_buffers(recurse=False))
        for attribute, tensor in own
        if isinstance(tensor, Deferred)
    ]


def _give(places: Iterable[_Place]) -> dict[str, Any]:
    """Read tensors, and put them where they are used; return parameters by their names."""
    made: dict[int, Any] = {}
    found = {}
    for place in places:
        tensor = made.get(id(place.tensor))
        if tensor is None:
            tensor = made[id(place.tensor)] = place.tensor.made()
            if place.name is not None:
                tensor = made[id(place.tensor)] = nn.Parameter(tensor, requires_grad=False)
                found[place.name] = tensor
        setattr(place.module, place.attribute, tensor)
    return found
