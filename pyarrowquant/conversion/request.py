"""What a caller of a conversion wants."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pyarrowquant._core.settings import SettingOverrides
from pyarrowquant.conversion.stores.landing import Landing
from pyarrowquant.recipes.recipe import SaidRecipe

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Request:
    """The arguments of `convert` and `plan`, as they are given there.

    Attributes
    ----------
    landing : Landing
        Of the destination.
    said : SettingOverrides
        The settings of layers that are given.
    """

    source: Path
    landing: Landing
    to: str | None
    said: SettingOverrides
    recipe: SaidRecipe | None
    bits_per_weight: float | None
    size: int | None
    split: int | None
    quality_floor: float | Mapping[str, float] | None
    double: bool
    tensors_only: bool
    pre_tokenizer: str | None
    importance: Path | None
    rescale: str
    threads: int | None
    engine: str
    address: str | None
    max_memory: int
    continue_on_error: bool
    overwrite: bool

    @property
    def budget(self) -> str | None:
        """The argument that bits are fitted to."""
        if self.size is not None:
            return "size"
        return None if self.bits_per_weight is None else "bits_per_weight"

    @property
    def is_mixed(self) -> bool:
        """Whether layers may get different bits than those that are said."""
        return self.budget is not None or self.quality_floor is not None
