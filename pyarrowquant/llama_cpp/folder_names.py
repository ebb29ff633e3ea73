"""What llama.cpp calls the tensors of a Hugging Face folder, of which it has measured inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyarrowquant.llama_cpp.architecture import MOST_LAYERS, Architecture, Part
from pyarrowquant.llama_cpp.known import ARCHITECTURES, kind_named
from pyarrowquant.llama_cpp.original_names import EMBEDDINGS, OUTPUT, parts_of
from pyarrowquant.reading.gguf import import_gguf

# By the model_type of config.json, where llama.cpp calls it otherwise than with other signs.
_OTHERWISE = {
    "cohere": "command-r",
    "granitemoehybrid": "granitehybrid",
    "hunyuan_v1_dense": "hunyuan-dense",
    "hunyuan_v1_moe": "hunyuan-moe",
    "phi": "phi2",
    "qwen2_5_vl": "qwen2vl",
    "qwen3_5": "qwen35",
    "qwen3_5_moe": "qwen35moe",
}
_USUAL = "llama"  # whose names most have
_SIGNS = re.compile(r"[^a-z0-9]")


class NamesInLlamaCpp:
    """Finds the tensors of llama.cpp that have the columns of a folder's.

    Parameters
    ----------
    config : mapping
        The model's config.json; an empty one for weights without one.
    names : iterable of str
        All tensors of the folder, which tell whether its head is its embeddings.
    """

    def __init__(self, config: Mapping[str, Any], names: Iterable[str]) -> None:
        gguf = import_gguf("Reading")
        kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
        name = _architecture(config, kinds)
        self._kind: type[Architecture] = kind_named(name)
        self._table = gguf.get_tensor_name_map(kinds[name], MOST_LAYERS)
        self._has_head = any(self._called(each) == [OUTPUT] for each in names)

    def parts(self, name: str) -> Sequence[Part]:
        """Return those that may have the columns of a tensor, the best first."""
        found = parts_of(name, self._kind, self._table)
        names = [part.name for part in found]
        if names == [OUTPUT]:
            return [*found, Part(EMBEDDINGS)]
        if names == [EMBEDDINGS] and not self._has_head:
            return [*found, Part(OUTPUT)]
        return found

    def _called(self, name: str) -> list[str]:
        return [part.name for part in parts_of(name, self._kind, self._table)]


def _architecture(config: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return what llama.cpp calls the architecture of a model, or one with the same names."""
    classes = config.get("architectures")
    for kind in ARCHITECTURES:
        if isinstance(classes, list) and classes and classes[0] in kind.classes:
            return kind.name
    by_letters = {_SIGNS.sub("", name): name for name in known}
    text = config.get("text_config")
    for part in (text, config):
        said = part.get("model_type") if isinstance(part, Mapping) else None
        if isinstance(said, str):
            said = said.removesuffix("_text")
            name = _OTHERWISE.get(said, by_letters.get(_SIGNS.sub("", said)))
            if name in known:
                return str(name)
    return _USUAL
