"""What codes of encodings stand for, by code. Go has the same; each row of a table says it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def _floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def _both_signs(values: Floats) -> Floats:
    return np.concatenate([values, -values])


def _e4m3() -> Floats:
    codes = np.arange(128)
    exponents, fractions = codes >> 3, (codes & 7) / 8
    values = np.ldexp(fractions + (exponents > 0), np.maximum(exponents, 1) - 7)
    return _both_signs(np.minimum(values, 448).astype(np.float32))


IQ4 = _floats(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
NF4 = _floats(
    *(-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022833234, -0.09105003625154495, 0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1),
)
E2M1 = _both_signs(_floats(0, 0.5, 1, 1.5, 2, 3, 4, 6))
# Of codes 127 and 255, which E4M3 leaves to NaN, it is the largest; no row has them.
E4M3 = _e4m3()

# Of encodings whose codes do not stand for themselves.
LEVELS = {
    "iq4_nl": IQ4,
    "iq4_xs": IQ4,
    "nf4": NF4,
    "mxfp4": E2M1,
    "mxfp8": E4M3,
    "nvfp4": E2M1,
    "fp8": E4M3,
}
