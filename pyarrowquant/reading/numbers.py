"""Values of numbers of 8 and of 4 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyarrowquant._core.levels import E2M1
from pyarrowquant._core.results import Floats

Array = npt.NDArray[Any]


def _float8(exponent_bits: int, bias: int, infinite: bool) -> Floats:
    """Values of all bytes of a float of 8 bits."""
    mantissa_bits = 7 - exponent_bits
    codes = np.arange(256)
    exponents = codes >> mantissa_bits & (1 << exponent_bits) - 1
    mantissas = codes & (1 << mantissa_bits) - 1
    fractions = mantissas / (1 << mantissa_bits)
    values = np.where(
        exponents == 0,
        np.ldexp(fractions, 1 - bias),
        np.ldexp(1 + fractions, exponents - bias),
    )
    if infinite:  # the largest exponent is that of Inf and NaN
        values = np.where(exponents == (1 << exponent_bits) - 1, np.nan, values)
        values[(exponents == (1 << exponent_bits) - 1) & (mantissas == 0)] = np.inf
    else:
        values[codes & 0x7F == 0x7F] = np.nan
    return (np.where(codes & 0x80, -1, 1) * values).astype(np.float32)


E4M3 = _float8(4, 7, infinite=False)
E5M2 = _float8(5, 15, infinite=True)
FLOAT8 = {"F8_E4M3": E4M3, "F8_E5M2": E5M2}
E8M0 = np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan).astype(np.float32)
# Both values of a byte, that of the low bits first.
E2M1_PAIRS = np.stack([E2M1[np.arange(256) & 15], E2M1[np.arange(256) >> 4]], axis=1)
INT8 = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
