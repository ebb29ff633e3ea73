"""OLMo 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture


class Olmo2(Architecture):
    """Norms after attention and after the feed-forward part."""

    name = "olmo2"
    classes: ClassVar[Sequence[str]] = ("Olmo2ForCausalLM",)
