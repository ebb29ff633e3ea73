"""How results came about, as far as files say it."""

from __future__ import annotations

from dataclasses import dataclass

from pyarrowquant.reading.importance import Importance


@dataclass(frozen=True)
class Split:
    """How an output is split into files.

    Attributes
    ----------
    name : str
        What their names begin with.
    size : int
        The most bytes that one may have.
    """

    name: str
    size: int


@dataclass(frozen=True)
class Origin:
    """What decided about results, beside the weights.

    Attributes
    ----------
    mix : str or None
        The mix of llama.cpp, or the scheme of compressed-tensors, that layers follow.
    is_changed : bool
        Whether rules or a quality floor give some layers other settings than the mix has.
    importance : Importance or None
        Of the columns of layers.
    rescaled : bool
        Whether factors were moved between layers first.
    split : Split or None
        None for one file.
    """

    mix: str | None = None
    is_changed: bool = False
    importance: Importance | None = None
    rescaled: bool = False
    split: Split | None = None
