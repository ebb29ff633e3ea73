"""What the Hugging Face folder of a GGUF model calls the model's tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pyarrowquant.llama_cpp.architecture import HEAD, MOST_LAYERS, Architecture, Part
from pyarrowquant.llama_cpp.known import kind_named
from pyarrowquant.llama_cpp.names import layer_of
from pyarrowquant.reading.gguf import GgufModel, import_gguf
from pyarrowquant.reading.tensors import Tensor

EMBEDDINGS, OUTPUT = "token_embd.weight", "output.weight"
_Found = dict[int | None, str]  # by which matrix of a stack each is


def originals_among(
    names: Iterable[str], model: GgufModel
) -> tuple[Mapping[str, tuple[str, ...]], set[str]]:
    """Return which of some names of a folder are those of what tensors are made of.

    Parameters
    ----------
    names : iterable of str
    model : GgufModel
        Whose architecture says what becomes of a folder's tensors.

    Returns
    -------
    mapping of str to tuple of str
        By the names of the model. Of a stack of experts there is one, or there are those of all
        experts in their order; those of a stack that lacks some are left out.
    set of str
        Those of any part of a tensor, also where others of it are missing.
    """
    gguf = import_gguf("Reading")
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    architecture = model.header.value("general.architecture")
    if not isinstance(architecture, str) or architecture not in kinds:
        return {}, set()
    tensors = {tensor.name: tensor for tensor in model.all_tensors}
    layers = min(1 + max(map(layer_of, tensors), default=-1), MOST_LAYERS)
    table = gguf.get_tensor_name_map(kinds[architecture], layers)
    found: dict[str, _Found] = {}
    for name in names:
        for part in parts_of(name, kind_named(architecture), table):
            found.setdefault(part.name, {}).setdefault(part.expert, name)
    # Where these are the same, either side may have one of them or both.
    if OUTPUT in tensors:
        found.setdefault(OUTPUT, found.get(EMBEDDINGS, {}))
    else:
        found.setdefault(EMBEDDINGS, found.get(OUTPUT, {}))
    originals = {name: _in_order(found.get(name, {}), tensor) for name, tensor in tensors.items()}
    known = {original for name in tensors for original in found.get(name, {}).values()}
    return {name: each for name, each in originals.items() if each}, known


def parts_of(name: str, kind: type[Architecture], table: Any) -> list[Part]:
    """Return what llama.cpp has with the columns of a folder's tensor, by its own names."""
    within = kind.within(name)
    if within == HEAD:
        return [Part(OUTPUT)]
    for original in (within, f"model.{within}"):  # which classes without a head lack
        found = [
            Part(str(target), part.expert)
            for part in kind.parts(original)
            if (target := table.get_name(kind.known_as(part.name), (".weight",))) is not None
        ]
        if found:
            return found
    return []


def _in_order(found: _Found, tensor: Tensor) -> tuple[str, ...]:
    if None in found:
        return (found[None],)
    experts = sorted((number, name) for number, name in found.items() if number is not None)
    is_whole = all(place == number for place, (number, _) in enumerate(experts))
    if len(tensor.shape) < 3 or not is_whole or len(experts) < tensor.shape[0]:
        return ()
    return tuple(name for _, name in experts)
