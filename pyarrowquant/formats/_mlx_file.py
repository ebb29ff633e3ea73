"""The file of tensors that MLX loads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pyarrowquant._core.layout import Coded
from pyarrowquant._core.quoting import quoted
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._layers import KeptLayers, Names
from pyarrowquant.formats._mlx_config import MlxSettings, quantization
from pyarrowquant.formats._mlx_layers import WEIGHT, entries_of
from pyarrowquant.formats._mlx_stacks import missing_experts, place_of, settings_of_modules
from pyarrowquant.formats._outline import Outline, OutlinedFile
from pyarrowquant.formats._safetensors import Entry, outlined
from pyarrowquant.formats._spool import Spool


def write_file(
    layers: LayersByName,
    kept: KeptLayers,
    path: Path,
    dtype: str,
    config: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Write the file; returns what config.json says of its layers.

    Parameters
    ----------
    layers : LayersByName
    kept : KeptLayers
    path : Path
    dtype : str
        Of scales and biases that are floats.
    config : mapping
        The model's config.json, which says whether experts are stacked.
    metadata : mapping
        What the header says beside tensors.
    """
    with Spool(path.parent) as spool:
        file, said = file_of("", layers, _spooled(kept, spool), dtype, config, metadata)
        Outline([file]).write(path, layers, layers.forget_pages)
    return said


def file_of(
    name: str,
    layers: Mapping[str, Coded],
    kept: Iterable[Entry],
    dtype: str,
    config: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> tuple[OutlinedFile, dict[str, dict[str, Any]]]:
    """Return the file, and what config.json says of its layers.

    Parameters
    ----------
    name : str
        As of `OutlinedFile`.
    layers : mapping
        Layers by their names.
    kept : iterable of Entry
        All other tensors.
    dtype, config, metadata
        As of `write_file`.
    """
    tensors = _Tensors(config)
    others = []
    for layer in layers.values():
        tensors.add(layer.name, entries_of(layer, dtype))
    for entry in kept:
        others.append(entry.name)
        tensors.add(entry.name, [entry])
    settings = {layer.name: MlxSettings.of(layer) for layer in layers.values()}
    modules = settings_of_modules(settings, others, config)
    return outlined(name, tensors.entries(), "mlx", metadata), quantization(modules)


def _spooled(kept: KeptLayers, spool: Spool) -> Iterator[Entry]:
    """Give tensors that come once, whose bytes wait in the spool."""
    for each in kept:
        start = spool.size
        spool.append(each.data)
        size = spool.size - start
        yield Entry.known(
            each.name, each.dtype, each.shape, size, partial(spool.pieces, start, size)
        )


class _Tensors:
    """The tensors of the file, of which experts become parts of stacks."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._names = Names()
        self._entries: list[Entry] = []
        self._stacks: dict[str, dict[int, Entry]] = {}

    def add(self, layer: str, entries: Iterable[Entry]) -> None:
        """Add the tensors that a layer has become."""
        place = place_of(layer, self._config)
        for entry in entries:
            self._names.add(entry.name)
            if place is None:
                self._entries.append(entry)
            else:
                part = entry.name.removeprefix(layer.removesuffix(WEIGHT))
                self._stacks.setdefault(f"{place.module}{part}", {})[place.number] = entry

    def entries(self) -> list[Entry]:
        """Return all tensors, once all are added."""
        for name, stack in self._stacks.items():
            self._names.add(name)
            experts = [stack[number] for number in sorted(stack)]
            if sorted(stack) != list(range(len(stack))):
                raise missing_experts(name, stack)
            if len({(expert.dtype, expert.shape) for expert in experts}) > 1:
                raise ValueError(
                    f"The experts of {quoted(name)} do not all have the same shape and dtype"
                )
            regions = [region for expert in experts for region in expert.regions]
            shape = (len(experts), *experts[0].shape)
            self._entries.append(Entry(name, experts[0].dtype, shape, regions))
        return self._entries
