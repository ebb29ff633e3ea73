"""What config.json says of packed layers, so that mlx-lm loads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pyarrowquant._core.layout import Coded
from pyarrowquant._core.quoting import quoted
from pyarrowquant.formats._mlx_layers import MODES, WEIGHT


@dataclass(frozen=True)
class MlxSettings:
    """What layers are coded with, by the names that mlx-lm has for it."""

    group_size: int
    bits: int
    mode: str

    @classmethod
    def of(cls, layer: Coded) -> MlxSettings:
        return cls(layer.group, layer.bits, MODES[layer.encoding])

    def __str__(self) -> str:
        return f"{self.bits} bits in groups of {self.group_size} ({self.mode})"


def quantization(settings: Mapping[str, MlxSettings]) -> dict[str, dict[str, Any]]:
    """Return what is added to config.json, by the settings of modules.

    The most frequent ones stand for all but the modules that are named. mlx-lm writes them by two
    names, and reads either.
    """
    if not settings:
        return {}
    ((usual, _),) = Counter(settings.values()).most_common(1)
    others = {module: asdict(each) for module, each in settings.items() if each != usual}
    for module in others.keys() & asdict(usual).keys():
        raise ValueError(
            f"config.json has no place for the settings of layer '{module}{WEIGHT}', as "
            f"{quoted(module)} means another thing there. Give all layers the same settings"
        )
    said = {**asdict(usual), **others}
    return {"quantization": said, "quantization_config": said}
