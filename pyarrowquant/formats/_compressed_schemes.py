"""Schemes of compressed-tensors: what layers share, and what config.json says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.group_sizes import (
    BLOCK,
    BLOCK_SIZE,
    TENSOR,
    WHOLE_ROW,
    GroupSize,
    grouping_text,
    size_order,
)
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.settings import Settings

_STRATEGIES = {WHOLE_ROW: "channel", TENSOR: "tensor", BLOCK: "block"}
_FP8_SIZES = (WHOLE_ROW, TENSOR, BLOCK)


@dataclass(frozen=True)
class _FloatFormat:
    """How compressed-tensors has an encoding of floats.

    Attributes
    ----------
    name : str
    scale_dtype : str or None
        What scales are, where that is not the model's dtype.
    """

    name: str
    scale_dtype: str | None = None


_E8M0 = "torch.uint8"
_FLOATS = {
    "fp8": _FloatFormat("float-quantized"),
    "mxfp8": _FloatFormat("mxfp8-quantized", _E8M0),
    "mxfp4": _FloatFormat("mxfp4-pack-quantized", _E8M0),
    "nvfp4": _FloatFormat("nvfp4-pack-quantized", "torch.float8_e4m3fn"),
}
ENCODINGS_HELD = (INTEGER, *_FLOATS)
SMALL_SCALES = tuple(name for name, each in _FLOATS.items() if each.scale_dtype)  # of a byte
PAIRS = ("mxfp4", "nvfp4")  # encodings of two codes in a byte
_MIXED = "mixed-precision"


@dataclass(frozen=True)
class Scheme:
    """Settings that layers share.

    Attributes
    ----------
    bits : int
    group : int or str
        -1 for whole rows.
    encoding : str
    int8 : bool
        Whether codes are bytes with a sign, and activations are quantized like them.
    """

    bits: int
    group: GroupSize
    encoding: str = INTEGER
    int8: bool = False

    def __str__(self) -> str:
        coded = f"{self.bits} bits" if self.encoding == INTEGER else self.encoding
        return f"{coded} in {grouping_text(self.group)}"

    @property
    def order(self) -> tuple[Any, ...]:
        """What schemes are sorted by."""
        return self.encoding != INTEGER, self.bits, size_order(self.group), self.encoding

    @property
    def format(self) -> str:
        """The name of how layers are stored."""
        if self.encoding == INTEGER:
            return "int-quantized" if self.int8 else "pack-quantized"
        return _FLOATS[self.encoding].name

    def config(self, symmetric: bool) -> dict[str, Any]:
        """Return what config.json says of weights and of activations, which need no data."""
        said = {"weights": self._weights(symmetric)}
        if activations := self._activations():
            said["input_activations"] = activations
        return said

    def _weights(self, symmetric: bool) -> dict[str, Any]:
        usual = "group" if self.encoding != "nvfp4" else "tensor_group"
        said: dict[str, Any] = {
            "num_bits": self.bits,
            "type": "int" if self.encoding == INTEGER else "float",
            "symmetric": symmetric,
            "strategy": _STRATEGIES.get(self.group, usual),
            "group_size": None if self.group in _STRATEGIES else self.group,
        }
        if self.group == BLOCK:
            said["block_structure"] = [BLOCK_SIZE, BLOCK_SIZE]
        if self.encoding != INTEGER and (dtype := _FLOATS[self.encoding].scale_dtype):
            said["scale_dtype"] = dtype
            if dtype == _E8M0:
                said["zp_dtype"] = dtype
        return said

    def _activations(self) -> dict[str, Any] | None:
        if self.encoding != "fp8" and not self.int8:
            return None
        return {
            "num_bits": 8,
            "type": "int" if self.int8 else "float",
            "symmetric": True,
            "strategy": "group" if self.group == BLOCK else "token",
            "group_size": BLOCK_SIZE if self.group == BLOCK else None,
            "dynamic": True,
        }


def scheme_of(layer: Coded, int8: bool = False) -> Scheme:
    """Return the scheme of a layer.

    Parameters
    ----------
    layer : Coded
    int8 : bool
        Whether layers of whole numbers that can have activations of 8 bits do so.
    """
    if layer.encoding != INTEGER:
        return Scheme(layer.bits, layer.group_size, layer.encoding)
    group = WHOLE_ROW if layer.group_size == WHOLE_ROW else layer.group
    by_row = (layer.bits, group, layer.zero_point) == (8, WHOLE_ROW, "symmetric")
    return Scheme(layer.bits, group, int8=int8 and by_row)


def is_symmetric(layers: Iterable[Coded]) -> bool:
    """Whether no layer has zero-points: one that has them makes all asymmetric."""
    return all(layer.encoding != INTEGER or layer.zero_point == "symmetric" for layer in layers)


def format_of(schemes: Iterable[Scheme]) -> str:
    """Return what config.json says of the whole model."""
    names = {scheme.format for scheme in schemes}
    return names.pop() if len(names) == 1 else _MIXED


def settings_problem(settings: Coded | Settings) -> str | None:
    """Say why no scheme has these settings, whatever the layer."""
    if settings.encoding == "fp8" and settings.group_size not in _FP8_SIZES:
        return (
            f"group_size {settings.group_size} is none that fp8 has there: quantize with "
            "group_size -1, 'tensor' or 'block'"
        )
    if settings.encoding == INTEGER and settings.zero_point == "float":
        return 'its zero-points are not integers: quantize with zero_point="symmetric"'
    return None


def group_problem(layer: Coded) -> str | None:
    """Say why no scheme has the groups of a layer."""
    if layer.group_size == TENSOR:
        return None
    whole = BLOCK_SIZE if layer.group_size == BLOCK else layer.group
    if layer.columns % whole:
        return f"{layer.columns} columns are no multiple of {_named(layer)}"
    return None


def _named(layer: Coded) -> str:
    if layer.group_size == BLOCK:
        return f"the {BLOCK_SIZE} of a block"
    return f"group_size {layer.group_size}"
