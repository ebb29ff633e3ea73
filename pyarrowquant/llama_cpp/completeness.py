"""What a folder has beside what llama.cpp's loader asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.names import layer_of
from pyarrowquant.llama_cpp.sizes import Place, Sizes
from pyarrowquant.reading.tensors import Tensor

_OTHER_CONFIG = "Take the config.json that came with the weights"


def check_tensors(
    folder: str,
    architecture: Architecture,
    sizes: Sizes,
    tensors: Sequence[Tensor],
    originals: Mapping[str, Sequence[str]],
) -> None:
    """Raise where tensors are missing, have no place, or other shapes than config.json says.

    Parameters
    ----------
    folder : str
        What errors begin with.
    architecture : Architecture
    sizes : Sizes
    tensors : sequence of Tensor
        What the folder becomes.
    originals : mapping of str to sequence of str
        What the folder calls what they are made of; what is added has none.
    """
    found = {tensor.name: tensor for tensor in tensors}
    layers = architecture.hyperparameters.layers
    said = f"its config.json says of {architecture.model_class}"
    if "token_embd.weight" not in found:
        raise ValueError(f"'{folder}' has no embeddings of tokens, which llama.cpp needs")
    whole = set(map(layer_of, found))
    for layer in range(layers):
        if layer not in whole:
            raise ValueError(
                f"'{folder}' has no tensors of layer {layer}, and its config.json says that there "
                f"are {layers} layers. Download the folder anew"
            )
    places = {place.name: place for place in all_places(architecture, sizes, layers)}
    for name in found:
        if name in originals and name not in places:
            raise ValueError(
                f"'{folder}': {_named(originals[name])} has no place in the model that {said}, as "
                f"llama.cpp computes its {architecture.name!r}, so that it would be left out. "
                f"{_OTHER_CONFIG}"
            )
    for name, place in places.items():
        if name not in found:
            if place.needed:
                original = name_in_folder(name, originals)
                known = name if original is None else f"{quoted(original)} ({name})"
                raise ValueError(
                    f"'{folder}' has no tensor {known}, which is part of the model that {said}. "
                    "Download the folder anew, or take the config.json that came with the weights"
                )
            continue
        wanted, shape = [size.value for size in place.shape], list(found[name].shape)
        if wanted != shape:
            keys = ", ".join(dict.fromkeys(size.said for size in place.shape))
            raise ValueError(
                f"'{folder}': {_named(originals[name])} becomes {name} of shape {shape}, and by "
                f"its config.json ({keys}) it is {wanted}. {_OTHER_CONFIG}"
            )


def all_places(architecture: Architecture, sizes: Sizes, layers: int) -> Iterator[Place]:
    """Give the tensors of a model."""
    yield from architecture.outer_places(sizes)
    for layer in range(layers):
        for place in architecture.layer_places(sizes, layer):
            yield Place(f"blk.{layer}.{place.name}", place.shape, place.needed)


def _named(originals: Sequence[str]) -> str:
    return first_few([quoted(name) for name in originals])


def name_in_folder(name: str, originals: Mapping[str, Sequence[str]]) -> str | None:
    """Return what the folder would call a tensor, as it does in another layer; None without one."""
    layer, within = layer_of(name), name.partition(".")[2].partition(".")[2]
    for other, names in originals.items():
        number = layer_of(other)
        if layer >= 0 and number >= 0 and other == f"blk.{number}.{within}":
            return re.sub(rf"(?<=\.){number}(?=\.)", str(layer), names[0], count=1)
    return None
