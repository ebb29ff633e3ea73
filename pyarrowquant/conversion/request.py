"""What a caller of a conversion wants."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from pyarrowquant._core import arguments
from pyarrowquant._core.settings import SettingOverrides, said_settings
from pyarrowquant.conversion.progress import Step
from pyarrowquant.reading.location import path_text
from pyarrowquant.recipes.recipe import GivenRecipe

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Request:
    """The arguments of `convert` and `plan`, as they are given there.

    Fields are their parameters, by the same names, so that both make one of their ``locals()``.
    """

    source: Path
    destination: Path
    to: str | None
    bit_width: int | None
    group_size: int | str | None
    method: str | None
    zero_point: str | None
    scale_dtype: str | None
    encoding: str | None
    recipe: GivenRecipe | None
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
    resume: bool
    overwrite: bool
    progress: Callable[[Step], object] | None

    def __post_init__(self) -> None:
        """Raise where something has a type that it cannot have, before it is taken for another."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool":
                arguments.boolean(field.name, value)
            elif value is not None and field.type in ("str", "str | None"):
                arguments.text(field.name, value)
        if self.importance is not None:
            path_text("importance", self.importance)
        arguments.check_callback("progress", "a Step", self.progress)

    @property
    def said(self) -> SettingOverrides:
        """The settings of layers that are given."""
        return said_settings(
            self.bit_width,
            self.group_size,
            self.method,
            self.zero_point,
            self.scale_dtype,
            self.encoding,
        )

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
