"""Codes of kinds that are not decoded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.beside import Beside
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import FLOATS, Tensor

_OF_STATES = re.compile(r"(.*weight)\.(?:quant_state|absmax).*", re.DOTALL)


class UnknownCodes:
    """Tells codes that nothing decodes by their dtypes and names.

    Parameters
    ----------
    stored : mapping of str to Stored
        All tensors of the model.
    """

    def __init__(self, stored: Mapping[str, Stored]) -> None:
        self._stored = stored
        self._beside = Beside(stored)

    def problem(self, tensor: Tensor) -> str | None:
        """Say of a tensor that nothing else knows why its codes are not decoded; None of others."""
        name = tensor.name
        if len(tensor.shape) < 2 and tensor.dtype != "U8":
            return None
        if name.endswith((".qweight", ".qzeros")):
            return "codes of GPTQ or AWQ are not decoded"
        if name in self._have_states:
            return "codes of bitsandbytes are not decoded without their quant_state of nf4 or fp4"
        if tensor.dtype == "F4" or tensor.dtype.startswith(("F6_", "F8_")):
            return f"{tensor.dtype} alone is not decoded"
        if tensor.dtype not in FLOATS and (scale := self._beside.scale(tensor)) is not None:
            return f"{tensor.dtype} with {quoted(scale.tensor.name)} is not decoded"
        if tensor.dtype in ("U8", "U32", "I32") and name.endswith((".weight", "_blocks")):
            return f"{tensor.dtype} without scales of a known name is not decoded"
        return None

    @cached_property
    def _have_states(self) -> frozenset[str]:
        """The names of weights beside which bitsandbytes has something of how they are coded."""
        found = map(_OF_STATES.fullmatch, self._stored)
        return frozenset(match[1] for match in found if match)
