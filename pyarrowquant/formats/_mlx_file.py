"""The file of tensors that MLX loads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pyarrowquant.formats._layers import KeptLayers, Names, Results
from pyarrowquant.formats._mlx_config import MlxSettings, quantization
from pyarrowquant.formats._mlx_layers import WEIGHT, LayerTensor, tensors_of
from pyarrowquant.formats._mlx_stacks import missing_experts, place_of, settings_of_modules
from pyarrowquant.formats._outputs import Spool
from pyarrowquant.formats._safetensors import Entry, write_tensors


def write_file(
    layers: Results, kept: KeptLayers, path: Path, dtype: str, config: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Write the file; returns what config.json says of its layers.

    Parameters
    ----------
    layers : Results
    kept : KeptLayers
    path : Path
    dtype : str
        Of scales and biases that are floats.
    config : mapping
        The model's config.json, which says whether experts are stacked.
    """
    settings: dict[str, MlxSettings] = {}
    others: list[str] = []
    with Spool(path.parent) as spool:
        tensors = _Tensors(spool, config)
        for layer in layers:
            settings[layer.name] = MlxSettings.of(layer)
            tensors.add(layer.name, tensors_of(layer, dtype))
        for each in kept:
            others.append(each.name)
            tensors.add(each.name, [LayerTensor(each.name, each.dtype, each.shape, [each.data])])
        modules = settings_of_modules(settings, others, config)
        write_tensors(path, tensors.entries(), "mlx")
    return quantization(modules)


@dataclass(frozen=True)
class _Spooled:
    """A tensor whose bytes are in the spool."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


class _Tensors:
    """The tensors of the file, of which experts become parts of stacks."""

    def __init__(self, spool: Spool, config: Mapping[str, Any]) -> None:
        self._spool = spool
        self._config = config
        self._names = Names()
        self._entries: list[Entry] = []
        self._stacks: dict[str, dict[int, _Spooled]] = {}

    def add(self, layer: str, tensors: Iterable[LayerTensor]) -> None:
        """Spool the tensors that a layer has become."""
        place = place_of(layer, self._config)
        for tensor in tensors:
            self._names.add(tensor.name)
            start = self._spool.size
            for piece in tensor.pieces:
                self._spool.append(piece)
            spooled = _Spooled(tensor.dtype, tensor.shape, start, self._spool.size - start)
            if place is None:
                self._entries.append(self._entry(tensor.name, tensor.shape, [spooled]))
            else:
                part = tensor.name.removeprefix(layer.removesuffix(WEIGHT))
                stack = self._stacks.setdefault(f"{place.module}{part}", {})
                stack[place.number] = spooled

    def entries(self) -> list[Entry]:
        """Return all tensors, once all are spooled."""
        for name, stack in self._stacks.items():
            self._names.add(name)
            parts = [stack[number] for number in sorted(stack)]
            if sorted(stack) != list(range(len(stack))):
                raise missing_experts(name, stack)
            if len({(part.dtype, part.shape) for part in parts}) > 1:
                raise ValueError(
                    f"The experts of '{name}' do not all have the same shape and dtype"
                )
            self._entries.append(self._entry(name, (len(parts), *parts[0].shape), parts))
        return self._entries

    def _entry(self, name: str, shape: tuple[int, ...], parts: list[_Spooled]) -> Entry:
        size = sum(part.size for part in parts)
        return Entry(name, parts[0].dtype, shape, size, partial(self._pieces, parts))

    def _pieces(self, parts: Iterable[_Spooled]) -> Iterator[Any]:
        for part in parts:
            yield from self._spool.pieces(part.start, part.size)
