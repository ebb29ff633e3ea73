"""The outline of a model's folder, with other tensors in the place of those of some layers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pyarrowquant._core.layout import Coded
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._layers import Names, Results
from pyarrowquant.formats._model_folder import ModelFolder, kept_entry
from pyarrowquant.formats._other_files import copy_files
from pyarrowquant.formats._outline import Outline
from pyarrowquant.formats._outputs import OutputFolder
from pyarrowquant.formats._safetensors import Entry, outlined
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.safetensors import INDEX


def folder_outline(
    source: ModelFolder,
    layers: Mapping[str, Coded],
    entries_of: Callable[[Coded], Iterable[Entry]],
    dtype: str,
    config: Mapping[str, Any] | None,
) -> Outline:
    """Return the outline of all files of a model.

    Parameters
    ----------
    source : ModelFolder
    layers : mapping
        Layers by their names.
    entries_of : callable
        Returns what a layer becomes.
    dtype : str
        Of the model.
    config : mapping or None
        Its quantization_config; None where nothing is quantized.
    """
    names = Names()
    weight_map: dict[str, str] = {}
    total_size = 0
    files = []
    for shard in source.shards:
        name = shard.location.name
        entries: list[Entry] = []
        for tensor in shard.tensors:
            if tensor.name in layers:
                entries += entries_of(layers[tensor.name])
            else:
                entries.append(kept_entry(shard, tensor, dtype))
        for entry in entries:
            weight_map[names.add(entry.name)] = name
            total_size += entry.size
        files.append(outlined(name, entries, metadata=shard.metadata))

    def finish(folder: Path) -> None:
        if source.has_index:
            metadata = {**source.index_metadata, "total_size": total_size}
            index = {"metadata": metadata, "weight_map": weight_map}
            _write_json(folder / INDEX, index)
        said = {} if config is None else {"quantization_config": config}
        _write_json(folder / CONFIG, {**source.config, **said})
        copy_files(source.other_files(), source.location, folder)

    return Outline(files, finish)


def write_folder(
    results: Results,
    source: ModelFolder,
    folder: Path,
    overwrite: bool,
    outline_of: Callable[[LayersByName], Outline],
) -> None:
    """Write a folder of results beside the files of the model that they are of.

    Parameters
    ----------
    results : Results
    source : ModelFolder
    folder : Path
    overwrite : bool
    outline_of : callable
        Returns the outline of layers.
    """
    with (
        OutputFolder(
            folder, overwrite, Path(source.location.path), set(source.other_files())
        ) as output,
        LayersByName(results, output.temporary) as layers,
    ):
        outline_of(layers).write(output.temporary, layers, layers.forget_pages)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")
