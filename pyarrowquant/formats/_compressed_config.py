"""What config.json says of packed layers, so that transformers finds them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyarrowquant._tensors import Tensor
from pyarrowquant.formats._layers import Packed
from pyarrowquant.presets import NOT_LINEAR

WEIGHT = ".weight"

_NAMED = 3
# Heads that share the weights of the embeddings, and so are in no file.
_TIED_DECODERS = ("lm_head", "cls.predictions", "predictions")


@dataclass(frozen=True, order=True)
class Scheme:
    """Settings that layers share; a group of None is a whole row."""

    bits: int
    group: int | None

    def __str__(self) -> str:
        group = "a group a row" if self.group is None else f"groups of {self.group}"
        return f"{self.bits} bits in {group}"

    def weights(self, symmetric: bool) -> dict[str, Any]:
        return {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": symmetric,
            "strategy": "channel" if self.group is None else "group",
            "group_size": self.group,
        }


def scheme_of(layer: Packed) -> Scheme:
    return Scheme(layer.bits, None if layer.group_size == -1 else layer.group)


def is_symmetric(layers: Iterable[Packed]) -> bool:
    """Whether all zero-points are symmetric: one layer that is not makes all asymmetric."""
    return all(layer.zero_point == "symmetric" for layer in layers)


def quantization_config(
    layers: Mapping[str, Packed], tensors: Mapping[str, Tensor], model_type: object
) -> dict[str, Any]:
    """Return the part of config.json, or raise where transformers could not load the layers.

    Parameters
    ----------
    layers : mapping
        The packed layers.
    tensors : mapping
        All tensors of the model.
    model_type : object
        As config.json has it.
    """
    schemes = schemes_of(layers)
    symmetric = is_symmetric(layers.values())
    packed = {name.removesuffix(WEIGHT) for name in layers}
    groups = {}
    for i, (scheme, names) in enumerate(sorted(schemes.items())):
        modules = sorted(name.removesuffix(WEIGHT) for name in names)
        targets = ["Linear"] if len(schemes) == 1 else _patterns(modules, _Prefixed(tensors))
        groups[f"group_{i}"] = {"targets": targets, "weights": scheme.weights(symmetric)}
    config: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": _ignored(packed, tensors, model_type),
        "config_groups": groups,
    }
    if not symmetric:
        # Without it transformers expects zero-points that are not packed.
        config["dequantize"] = True
    return config


def schemes_of(layers: Mapping[str, Packed]) -> dict[Scheme, list[str]]:
    """Return the names of the layers of each scheme, or raise where one file cannot have them."""
    schemes: dict[Scheme, list[str]] = defaultdict(list)
    for name, layer in layers.items():
        schemes[scheme_of(layer)].append(name)
    if len(schemes) > 1 and not is_symmetric(layers.values()):
        raise ValueError(
            "transformers loads layers of different settings only with symmetric zero-points, and "
            f"the results have {_listed(schemes)}. Quantize all of them with "
            'zero_point="symmetric", or with the same bit_width and group_size'
        )
    return schemes


def _listed(schemes: Mapping[Scheme, list[str]]) -> str:
    parts = []
    for scheme, names in sorted(schemes.items()):
        some = ", ".join(f"'{name}'" for name in sorted(names)[:_NAMED])
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        parts.append(f"{scheme} ({some}{more})")
    return "; ".join(parts)


def _ignored(packed: set[str], tensors: Mapping[str, Tensor], model_type: object) -> list[str]:
    """Return all modules that could be linear layers and are not packed."""
    kept = [
        name.removesuffix(WEIGHT)
        for name, tensor in tensors.items()
        if name.endswith(WEIGHT) and len(tensor.shape) == 2
    ]
    names = dict.fromkeys([*kept, *_tied(tensors, model_type)])
    exact = [module for module in names if module not in packed]
    prefixed = _Prefixed(tensors)
    others = [
        module
        for module in exact
        if "." in module
        and prefixed.is_clear(module)
        and not any(rule.matches(module + WEIGHT, (1, 1)) for rule in NOT_LINEAR)
    ]
    return exact + _patterns(others, prefixed)


def _tied(tensors: Mapping[str, Tensor], model_type: object) -> Iterator[str]:
    """Give linear layers that have no weights of their own."""
    heads = ["lm_head"]
    if model_type == "whisper":
        heads.append("proj_out")
    for parent in _TIED_DECODERS:
        if any(name.startswith(parent + ".") and name != parent + WEIGHT for name in tensors):
            heads.append(f"{parent}.decoder")
    heads += [name.removesuffix(".bias") for name in tensors if name.endswith(".bias")]
    for module in heads:
        if module + WEIGHT not in tensors:
            yield module


class _Prefixed:
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


def _patterns(modules: Iterable[str], prefixed: _Prefixed) -> list[str]:
    """Return regular expressions for just these modules.

    Modules that differ only in the number of their block share one: to match each module of a
    model with each of thousands of expressions would take minutes.
    """
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for module in modules:
        first, rest = "", module
        if prefixed.is_clear(module) and module.count(".") > 1:
            first, _, rest = module.partition(".")
            first = rf"(?:(?:[^.]+\.)?{re.escape(first)}\.)?"
        elif prefixed.is_clear(module):
            first = r"(?:[^.]+\.)?"
        if number := re.search(r"(?<=\.)\d+(?=\.)", rest):
            before, after = rest[: number.start()], rest[number.end() :]
            places[first + re.escape(before), re.escape(after)].append(number[0])
        else:
            places[first + re.escape(rest), ""] = []
    patterns = []
    for (before, after), numbers in places.items():
        block = "|".join(sorted(numbers, key=int))
        block = f"(?:{block})" if len(numbers) > 1 else block
        patterns.append(f"re:{before}{block}{after}$")
    return sorted(patterns)
