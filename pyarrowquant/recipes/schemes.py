"""Names of schemes of compressed-tensors, which are recipes."""

from __future__ import annotations

from pyarrowquant._core.settings import SettingOverrides

SCHEMES: dict[str, SettingOverrides] = {
    "FP8_DYNAMIC": {"encoding": "fp8", "group_size": -1},
    "FP8_BLOCK": {"encoding": "fp8", "group_size": "block"},
    "MXFP8A16": {"encoding": "mxfp8"},
    "NVFP4A16": {"encoding": "nvfp4"},
    "MXFP4A16": {"encoding": "mxfp4"},
    "W4A16": {"bit_width": 4, "group_size": 128, "zero_point": "symmetric"},
    "W4A16_ASYM": {"bit_width": 4, "group_size": 128, "zero_point": "integer"},
    "W8A16": {"bit_width": 8, "group_size": 128, "zero_point": "symmetric"},
    "W8A8": {"bit_width": 8, "group_size": -1, "zero_point": "symmetric"},
}
# What comes next to others of compressed-tensors, whose activations need scales or codes that only
# an engine and data make, or that are other names and settings of the same.
NEXT_SCHEMES = {
    "FP8": "FP8_DYNAMIC, whose activations need no data",
    "NVFP4": "NVFP4A16, which has the same weights",
    "MXFP4": "MXFP4A16, which has the same weights",
    "MXFP8": "MXFP8A16, which has the same weights",
    "INT8": "W8A8, which is the same",
    "W4AFP8": "W4A16, which has the same bits",
    "W4A8": "W4A16, which has the same bits",
    **{f"W{bits}A16": f"bit_width={bits} instead" for bits in (2, 3, 5, 6)},
}
INT8_ACTIVATIONS = "W8A8"  # whose weights could do without them

# What each is, in a line.
ABOUT_SCHEMES = {
    "FP8_DYNAMIC": "scheme of compressed-tensors: FP8 by row; the engine's activations are FP8",
    "FP8_BLOCK": "scheme of compressed-tensors: FP8 in blocks of 128x128; activations likewise",
    "MXFP8A16": "scheme of compressed-tensors: 8.25 bits",
    "NVFP4A16": "scheme of compressed-tensors: 4.5 bits, with one global scale a layer",
    "MXFP4A16": "scheme of compressed-tensors: 4.25 bits",
    "W4A16": "scheme of compressed-tensors: 4 bits in groups of 128, symmetric",
    "W4A16_ASYM": "scheme of compressed-tensors: 4 bits in groups of 128, with zero-points",
    "W8A16": "scheme of compressed-tensors: 8 bits in groups of 128, symmetric",
    "W8A8": "scheme of compressed-tensors: 8 bits by row; the engine's activations have 8, too",
}
