"""What of an output is known before any work: its names, and the room that it takes."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyarrowquant._core.group_sizes import groups_in_row
from pyarrowquant._core.quoting import first_names, quoted
from pyarrowquant.conversion.unquantized import UnquantizedTensor
from pyarrowquant.errors import users_level
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._other_files import usable_size
from pyarrowquant.formats._outline import OutlinedFile
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.bits import table_bits
from pyarrowquant.recipes.budget import Budget
from pyarrowquant.recipes.planned import PlannedLayer, layout_of

_LONGEST_FILE_NAME = 255
_MOST_IN_A_ROW = 2**31  # bytes of codes, and groups, which offsets of 32 bits count


def copied_bytes(target: Format, model: Model) -> int:
    """Return the bytes of a model's other files that go along; raise where one cannot be used."""
    if model.folder is None:
        return 0
    names = sorted(file.as_posix() for file in target.copied_files(model))
    return sum(usable_size(model.folder.within(name)) for name in names)


def check_file_names(names: Iterable[str]) -> None:
    """Raise where a file of a folder would have a name that is too long."""
    for name in names:
        if len(os.fsencode(name)) > _LONGEST_FILE_NAME:
            raise ValueError(
                f"The output would have the file '{name}', whose name has {len(os.fsencode(name))} "
                f"bytes, the most allowed is {_LONGEST_FILE_NAME}. Rename the source"
            )


def check_names(
    target: Format, layers: Sequence[PlannedLayer], left: Sequence[UnquantizedTensor]
) -> None:
    """Raise where two tensors of the output would have the same name, or one that has a meaning."""
    owners: dict[str, str] = {}

    def add(name: str, owner: str) -> None:
        if name in target.reserved_names:
            raise ValueError(f"{target.name} cannot have a tensor named {quoted(name)}. Rename it")
        if name in owners:
            raise ValueError(
                f"Two tensors of the output would be named {quoted(name)}: one of {owners[name]}, "
                f"one of {owner}. Rename one, or leave the layer out by a rule with skip"
            )
        owners[name] = owner

    for layer in layers:
        if coded := layout_of(layer):
            for name in target.names_of(coded):
                add(name, f"layer {quoted(coded.name)}")
    for tensor in left if target.checks_kept_names else ():
        if tensor.kept:
            add(tensor.name, f"tensor {quoted(tensor.name)}, which is kept")
    _warn_of_long(target, owners)


def _warn_of_long(target: Format, names: Iterable[str]) -> None:
    if target.longest_name is None:
        return
    long = [name for name in names if len(name.encode()) > target.longest_name]
    if long:
        warnings.warn(
            f"Names of more than {target.longest_name} bytes, which llama.cpp does not load; other "
            f"readers do: {first_names(long, most=1)}",
            UserWarning,
            stacklevel=users_level(),
        )


def check_sizes(layers: Sequence[PlannedLayer]) -> None:
    """Raise where the results of a layer would be too long for a batch of a stream."""
    for layer in layers:
        if layer.settings is None or 0 in layer.shape:
            continue
        rows = layer.weights // layer.columns
        codes = rows * -(-layer.columns * layer.settings.bit_width // 8)
        groups = rows * groups_in_row(layer.settings.group_size, layer.columns)
        if max(codes, groups) >= _MOST_IN_A_ROW:
            raise ValueError(
                f"Layer {quoted(layer.name)} of shape {list(layer.shape)} would have {codes:,} "
                f"bytes of codes and {groups:,} groups, the most is {_MOST_IN_A_ROW - 1:,}. Give "
                "it fewer bits by a rule of its own, or leave it out by a rule with skip"
            )


def check_room(
    target: Format,
    layers: Sequence[PlannedLayer],
    left: Sequence[UnquantizedTensor],
    model: Model,
    copied: int,
    budget: Budget | None,
    are_placed: bool,
    destination: Path,
    work: Path,
) -> None:
    """Raise where the disk has no room for the output, and for results of which it is made.

    Parameters
    ----------
    target : Format
    layers : sequence of PlannedLayer
    left : sequence of UnquantizedTensor
    model : Model
    copied : int
        Bytes of other files of the model, which go along.
    budget : Budget or None
        Bounds the bits of layers.
    are_placed : bool
        Whether results are written to the output alone.
    destination : Path
    work : Path
        Where an interrupted run has left what needs no more room.
    """
    coded = [layer for layer in layers if layer.settings is not None]
    results = output = 0
    for layer in coded:
        assert layer.settings is not None
        if not are_placed:
            results += table_bits(layer.shape, layer.settings) // 8
        output += target.stored_bits(layer.shape, layer.settings) // 8
    if budget is not None:
        most = budget.bits(sum(layer.weights for layer in coded)) // 8
        results, output = min(results, most), min(output, most)
    output += sum(tensor.kept_bytes for tensor in left)
    needed = results + output * (2 if target.spools(model) else 1)
    needed += copied
    free = shutil.disk_usage(destination.parent).free + _size(work)
    if needed > free:
        raise OSError(
            f"The disk of '{destination}' has {free:,} bytes free, and about {needed:,} are needed "
            f"while this runs, of which {output:,} stay. Make room, or give a destination elsewhere"
        )


def check_room_on_the_way(files: Iterable[OutlinedFile], made: Path) -> None:
    """Raise where this machine has no room for files that are made together for a store.

    Parameters
    ----------
    files : iterable of OutlinedFile
    made : Path
        Where they are made.
    """
    needed = sum(file.size for file in files)
    free = shutil.disk_usage(made.parent).free
    if needed > free:
        raise OSError(
            f"The disk of '{made.parent}' has {free:,} bytes free, and {needed:,} are needed for "
            "what is on its way to the store. Make room, or name another folder in TMPDIR"
        )


def _size(folder: Path) -> int:
    places = ((place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(os.lstat(os.path.join(*each)).st_size for each in places)
