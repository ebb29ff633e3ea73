"""What a model's folder calls the parameters that transformers has made of its tensors."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_LAYER = re.compile(r"(?:^|\.)((?:layers?|h|blocks?)\.\d+\..*)")
_STACK = re.compile(r"(?P<layer>.*\.(?:layers|h|blocks)\.\d+\.).*\bexperts\.(?P<which>\w+)$")
_EXPERT = re.compile(
    r"(?P<layer>.*\.(?:layers|h|blocks)\.\d+\.).*\bexperts\.(?P<expert>\d+)\.(?P<which>\w+)\.weight$"
)
# Matrices of an expert by the stack that transformers joins them in.
_JOINED = {
    "gate_up_proj": frozenset({"gate_proj", "up_proj", "w1", "w3"}),
    "down_proj": frozenset({"down_proj", "w2"}),
}


@dataclass(frozen=True)
class FolderName:
    """A tensor of the folder.

    Attributes
    ----------
    name : str
    expert : int or None
        Which matrix of the parameter it is; None for all of it.
    """

    name: str
    expert: int | None = None


def folder_names(parameter: str, tensors: Collection[str]) -> list[FolderName]:
    """Return the tensors that have become a parameter; none where they are not known.

    Parameters
    ----------
    parameter : str
    tensors : collection of str
        The names of all tensors of the folder.
    """
    if parameter in tensors:
        return [FolderName(parameter)]
    if stack := _STACK.match(parameter):
        joined = _JOINED.get(stack["which"], frozenset())
        found = [
            FolderName(name, int(expert["expert"]))
            for name in tensors
            if (expert := _EXPERT.match(name))
            and expert["layer"] == stack["layer"]
            and expert["which"] in joined
        ]
        if found:
            return found
    # Prefixes of the model's base come and go.
    ends = [name for name in tensors if _is_end(name, parameter) or _is_end(parameter, name)]
    if not ends and (within := _LAYER.search(parameter)):
        ends = _nearest([name for name in tensors if _is_end(within[1], name)], parameter)
    return [FolderName(ends[0])] if len(ends) == 1 else []


def _nearest(names: list[str], parameter: str) -> list[str]:
    """Return those that share most words with a parameter: parts that see have such layers, too."""
    words = set(parameter.split("."))
    shared = {name: len(words.intersection(name.split("."))) for name in names}
    return [name for name in names if shared[name] == max(shared.values())]


def _is_end(end: str, name: str) -> bool:
    return name.endswith(f".{end}")
