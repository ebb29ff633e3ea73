"""What a budget chooses from, and what it minimizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pyarrowquant._core.settings import SettingOverrides, Settings
from pyarrowquant.formats._sensitivity import weights_by_kind
from pyarrowquant.llama_cpp.models import LlamaCppModel
from pyarrowquant.reading.model import Model

# What a budget chooses from: for each number of bits, the type of least error. Other rows than
# those of whole super-blocks cannot have K-quants.
_SUPER_BLOCK = 256
_Q8_0: SettingOverrides = {"bit_width": 8}
_WHOLE_BLOCKS: tuple[SettingOverrides, ...] = (
    {"encoding": "q2_k"},
    {"encoding": "q3_k"},
    {"encoding": "iq4_xs"},
    {"encoding": "q4_k"},
    {"encoding": "q5_k"},
    {"encoding": "q6_k"},
    _Q8_0,
)
_OTHER_BLOCKS: tuple[SettingOverrides, ...] = (
    {"encoding": "mxfp4"},
    {"encoding": "iq4_nl"},
    {"zero_point": "float"},
    {"bit_width": 5},
    {"bit_width": 5, "zero_point": "float"},
    _Q8_0,
)


def types_for(settings: Settings, columns: int) -> list[Settings]:
    """Return what rows of so many columns may have in place of settings, the largest last."""
    overrides = _OTHER_BLOCKS if columns % _SUPER_BLOCK else _WHOLE_BLOCKS
    return [settings.with_overrides(said) for said in overrides]


def error_weights(model: Model) -> Callable[[str, Sequence[int]], float]:
    """Return what squared relative errors of layers weigh: sensitivity, for all their weights."""
    head = "output.weight"
    if all(tensor.name != head for tensor in model.all_tensors):
        head = "token_embd.weight"
    return weights_by_kind(_kind_of, head if isinstance(model, LlamaCppModel) else None)


def _kind_of(name: str) -> str | None:
    found = re.fullmatch(r"blk\.\d+\.(\w+)\.weight", name)
    return found[1] if found else None
