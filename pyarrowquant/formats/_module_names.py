"""Names of modules as transformers has them, of which files say the names of tensors."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, zip_longest

from pyarrowquant.reading.tensors import Tensor
from pyarrowquant.recipes.presets import EMBEDDINGS

WEIGHT = ".weight"

# Heads that share the weights of the embeddings, and so are in no file.
_TIED_DECODERS = ("lm_head", "cls.predictions", "predictions")
# Those of other names, by the model_type of config.json.
_TIED_HEADS = {
    **dict.fromkeys(
        ("canary", "cohere_asr", "moonshine", "moonshine_streaming", "whisper"), "proj_out"
    ),
    **dict.fromkeys(("biogpt", "trocr"), "output_projection"),
}
# Linear layers that are not packed, as files and as transformers 5 name them.
_RENAMED = {"phimoe": (".block_sparse_moe.gate", ".mlp.router")}


def unpacked(layers: Iterable[str], tensors: Mapping[str, Tensor], model_type: object) -> list[str]:
    """Return all modules that could be linear layers and are not packed.

    Parameters
    ----------
    layers : iterable of str
        Names of the packed layers.
    tensors : mapping
        All tensors of the model.
    model_type : object
        As config.json has it.
    """
    packed = {name.removesuffix(WEIGHT) for name in layers}
    kept = [
        name.removesuffix(WEIGHT)
        for name, tensor in tensors.items()
        if name.endswith(WEIGHT) and len(tensor.shape) == 2
    ]
    if (renamed := _RENAMED.get(str(model_type))) is not None:
        kept += [module.replace(*renamed) for module in kept if module.endswith(renamed[0])]
    names = dict.fromkeys([*kept, *_tied(tensors, model_type)])
    return [module for module in names if module not in packed]


def unpacked_patterns(exact: Iterable[str], tensors: Mapping[str, Tensor]) -> list[str]:
    """Return regular expressions for modules that other classes have by other names.

    Parameters
    ----------
    exact : iterable of str
        What `unpacked` gave.
    tensors : mapping
        All tensors of the model.
    """
    prefixed = Prefixed(tensors)
    others = [
        module
        for module in exact
        if "." in module
        and prefixed.is_clear(module)
        and not any(rule.matches(module + WEIGHT, (1, 1)) for rule in EMBEDDINGS)
    ]
    return patterns(others, prefixed)


def _tied(tensors: Mapping[str, Tensor], model_type: object) -> Iterator[str]:
    """Give linear layers that have no weights of their own."""
    heads = ["lm_head"]
    if (head := _TIED_HEADS.get(str(model_type))) is not None:
        heads.append(head)
    for parent in _TIED_DECODERS:
        if any(name.startswith(parent + ".") and name != parent + WEIGHT for name in tensors):
            heads.append(f"{parent}.decoder")
    heads += [name.removesuffix(".bias") for name in tensors if name.endswith(".bias")]
    for module in heads:
        if module + WEIGHT not in tensors:
            yield module


class Prefixed:
    """Names that modules have in other classes of the same model.

    transformers adds the name of the base model to names in files, or removes it, as the class
    that it loads demands: "layers.0.mlp" may become "model.layers.0.mlp".
    """

    def __init__(self, tensors: Iterable[str]) -> None:
        modules = {name.removesuffix(WEIGHT) for name in tensors if name.endswith(WEIGHT)}
        self._taken = Counter(modules)
        self._taken.update(module.partition(".")[2] for module in modules)

    def is_clear(self, module: str) -> bool:
        """Whether no other module could be meant with one part more or less."""
        return self._taken[module] <= 1 and self._taken[module.partition(".")[2]] <= 1


def patterns(modules: Iterable[str], prefixed: Prefixed) -> list[str]:
    """Return regular expressions for just these modules.

    Modules that differ only in numbers share one: to match each module of a model with each of
    thousands of expressions would take minutes.
    """
    places: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for module in modules:
        prefix, name = "", module
        if prefixed.is_clear(module):
            first, _, rest = module.partition(".")
            prefix = r"(?:[^.]+\.)?"
            if "." in rest and not rest[0].isdigit():
                prefix, name = f"(?:{prefix}{re.escape(first)}\\.)?", rest
        parts = re.split(r"(?<=\.)(\d+)(?=\.)", name)
        places[(prefix, *parts[::2])].append(tuple(parts[1::2]))
    found = []
    for (prefix, *texts), numbers in places.items():
        for choices in _choices(numbers):
            blocks = ["|".join(sorted(choice, key=int)) for choice in choices]
            blocks = [f"(?:{block})" if "|" in block else block for block in blocks]
            pairs = zip_longest(map(re.escape, texts), blocks, fillvalue="")
            found.append(f"{prefix}{''.join(chain.from_iterable(pairs))}$")
    return sorted(found)


def _choices(numbers: list[tuple[str, ...]]) -> Iterator[list[set[str]]]:
    """Part the numbers in names into sets, one a position, whose combinations are all there."""
    every = [set(position) for position in zip(*numbers, strict=True)]
    if math.prod(len(position) for position in every) == len(numbers):
        yield every
        return
    firsts: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for first, *others in numbers:
        firsts[tuple(others)].add(first)
    for rest, choice in firsts.items():
        yield [choice, *({number} for number in rest)]
