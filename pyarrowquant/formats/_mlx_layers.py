"""Layers that MLX holds, and the tensors that they become."""

from __future__ import annotations

import numpy as np

from pyarrowquant._core import laying
from pyarrowquant._core.encoded_rows import is_e4m3
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.results import Packed
from pyarrowquant._core.settings import Settings
from pyarrowquant.formats._layers import is_of, planned_scales_fit, rounded, widened
from pyarrowquant.formats._outline import LayerRegion, part_region
from pyarrowquant.formats._safetensors import Entry
from pyarrowquant.recipes.planned import PlannedLayout

WEIGHT = ".weight"
GROUPS = (32, 64, 128)
SAFETENSORS_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
# What MLX calls encodings.
MODES = {INTEGER: "affine", "mxfp4": "mxfp4", "mxfp8": "mxfp8", "nvfp4": "nvfp4"}
ENCODINGS = tuple(MODES)
HOLDS = (
    "MLX holds matrices named '<module>.weight' of 2, 3, 4, 5, 6 or 8 bits with group_size 32, 64 "
    "or 128, the columns a multiple of it, and scales of the dtype of the call; and those of the "
    "encodings mxfp4, mxfp8 and nvfp4, the columns a multiple of 32. Quantize such "
    "layers with other settings, or give them in kept"
)


def problem_of(layer: Packed, dtype: str) -> str | None:
    """Say why MLX cannot hold a layer, with scales and biases of a dtype."""
    if problem := layout_problem(layer):
        return problem
    if layer.encoding == "nvfp4" and not is_e4m3(layer.scales).all():
        return (
            "its scales are products with one of the whole layer, which MLX has no place for: "
            'pyarrowquant.convert(..., to="mlx") quantizes without it'
        )
    if layer.encoding != INTEGER:
        return None
    if not is_of(layer.scales, dtype):
        return _other_dtype(dtype)
    if not np.isfinite(widened(rounded(layer.biases, dtype))).all():
        return f"a bias is beyond {dtype}"
    return None


def planned_problem(layer: PlannedLayout, dtype: str) -> str | None:
    """Say why MLX could not hold a layer that will be coded like this."""
    fits = layer.encoding != INTEGER or planned_scales_fit(layer, dtype)
    return layout_problem(layer) or (None if fits else _other_dtype(dtype))


def _other_dtype(dtype: str) -> str:
    return f'its scales are not {dtype}: quantize with scale_dtype="{dtype}", or write others'


def layout_problem(layer: Coded) -> str | None:
    """Say what of a layer's name, shape and groups MLX does not take."""
    if not layer.name.endswith(WEIGHT) or layer.name == WEIGHT:
        return "its name does not end with '.weight'"
    if problem := layer.matrix_problem():
        return problem
    if layer.encoding != INTEGER:
        return (
            None
            if fits_encoded(layer.columns)
            else f"{layer.columns} columns are no multiple of 32"
        )
    if layer.group not in GROUPS:
        return f"group_size {layer.group_size}"
    if layer.columns % layer.group:
        return f"{layer.columns} columns are no multiple of group_size {layer.group_size}"
    return None


def settings_problem(settings: Settings) -> str | None:
    """Say why MLX has no layer of these settings, and what it has."""
    if settings.encoding != INTEGER or settings.group_size in GROUPS:
        return None
    *sizes, last = GROUPS
    return (
        f"group_size {settings.group_size}: quantize with group_size={sizes[0]}, "
        f"{', '.join(map(str, sizes[1:]))} or {last}"
    )


def fits_encoded(columns: int) -> bool:
    """Whether MLX decodes rows of an encoding; it also does not know half a pair of nvfp4's."""
    return columns % 32 == 0


def tensor_names(layer: Coded) -> list[str]:
    """Return the names of what a layer becomes."""
    module = layer.name.removesuffix(WEIGHT)
    names = [layer.name, f"{module}.scales"]
    return [*names, f"{module}.biases"] if layer.encoding == INTEGER else names


def entries_of(layer: Coded, dtype: str) -> list[Entry]:
    """Return what a layer becomes, with scales and biases of a dtype where they are floats."""
    rows = layer.shape[0]
    width = layer.columns * layer.bits // 8
    groups = rows, laying.groups_of(layer)
    if layer.encoding == INTEGER:
        parts = [laying.scales(layer, dtype), laying.biases(layer, dtype)]
        stored = SAFETENSORS_DTYPES[dtype]
    else:
        is_nvfp4 = layer.encoding == "nvfp4"  # of a layer's scale of 1
        parts = [laying.small_scales(layer, 1.0) if is_nvfp4 else laying.exponents(layer)]
        stored = "U8"
    names = tensor_names(layer)
    codes = LayerRegion(rows * width, layer, lambda packed: [packed.codes])
    return [
        Entry(names[0], "U32", (rows, width // 4), [codes]),
        *(
            Entry(name, stored, groups, [part_region(layer, part)])
            for name, part in zip(names[1:], parts, strict=True)
        ),
    ]
