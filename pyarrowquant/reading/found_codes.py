"""What is found of a model's codes, and what should be codes and is not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pyarrowquant.reading.beside import NUMBER, WEIGHT
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.said import Said
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import FLOATS, CodedTensor, Tensor

_HEAD = "lm_head"
_IN_EXPERTS = ".experts."  # which may be stacks


@dataclass
class Codes:
    """What is found of a model's codes.

    Attributes
    ----------
    layers : dict of str to Tensor
        By the names of the tensors that have the codes.
    parts : set of str
        Names of tensors that serve others.
    floats : list of str
        Weights that are floats where others like them are codes, and config.json says no such.
    key_of_floats : str or None
        Its key that lists such.
    coded : dict of str to str
        Weights that are codes, and are listed all the same, each with the key.
    """

    layers: dict[str, Tensor] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)
    floats: list[str] = field(default_factory=list)
    key_of_floats: str | None = None
    coded: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unnamed:
    """Tensors that an index does not name, though its shards have them.

    Attributes
    ----------
    index : Location
    names : collection of str
    """

    index: Location
    names: Collection[str]


def find_mistakes(found: Codes, stored: Mapping[str, Stored], said: Said) -> None:
    """List floats in the place of codes, and the reverse.

    Parameters
    ----------
    found : Codes
        Which gets them.
    stored : mapping of str to Stored
        All tensors of the model.
    said : Said
        What config.json says.
    """
    coded = [layer for layer in found.layers.values() if isinstance(layer, CodedTensor)]
    alike = {_kind_of(layer.name) for layer in coded}
    if alike and said.means_heads:
        alike.add(_HEAD)
    found.floats = [
        name
        for name, one in stored.items()
        if one.tensor.dtype in FLOATS
        and len(one.tensor.shape) > 1
        and (name.endswith(f".{WEIGHT}") or _IN_EXPERTS in name)
        and name not in found.layers
        and name not in found.parts
        and _kind_of(name) in alike
        and said.is_float_by_mistake(name.removesuffix(f".{WEIGHT}"))
    ]
    if found.floats:
        found.key_of_floats = said.key_of_floats
    for layer in coded:
        if key := said.key_of_coded(layer.name.removesuffix(f".{WEIGHT}")):
            found.coded[layer.name] = key


def _kind_of(name: str) -> str:
    """Return what a weight and others of linear layers are called alike.

    Experts, which may be no linear layers, are so with those of other numbers.
    """
    last = name.removesuffix(f".{WEIGHT}").rpartition(".")[2]
    return NUMBER.sub("0", name) if last.isdecimal() or _IN_EXPERTS in name else last
