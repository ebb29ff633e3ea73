"""What config.json says of the weights of some modules: the groups of compressed-tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.shapes import product
from pyarrowquant.reading.coded_layer import CodedLayer
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.decoding import down
from pyarrowquant.reading.numbers import FLOAT8
from pyarrowquant.reading.tensors import Tensor

Config = Mapping[str, Any]

# Which formats of compressed-tensors have codes of a kind; that of packs is for all their bits.
_PACKED, _BYTES = "pack-quantized", "8-bit integers"
_LEAST_BITS = 2  # of whole numbers that are stored in a byte each
_FORMATS = {
    "F8_E4M3": {"float-quantized", "naive-quantized"},
    "F8_E5M2": {"float-quantized", "naive-quantized"},
    _BYTES: {"int-quantized", "naive-quantized"},
    "NVFP4": {"nvfp4-pack-quantized"},
    "MXFP4": {"mxfp4-pack-quantized"},
    "MXFP8": {"mxfp8-quantized", "float-quantized", "naive-quantized"},
}
_KNOWN_FORMATS = {_PACKED, *(name for names in _FORMATS.values() for name in names)}


@dataclass(frozen=True)
class Group:
    """What is said of the weights of some modules.

    Attributes
    ----------
    targets : list of str
        Names of modules, regular expressions after "re:", or classes.
    weights : mapping
    format : object
        How they are stored.
    """

    targets: Sequence[str]
    weights: Config
    format: object

    def names(self, module: str) -> bool:
        """Whether a module is meant by its name."""
        return any(_means(target, module) for target in self.targets)

    @property
    def group_size(self) -> int | None:
        size = self.weights.get("group_size")
        return size if type(size) is int and size > 0 else None

    @property
    def block(self) -> tuple[int, int] | None:
        return block_of(self.weights.get("block_structure"))

    def problem(self, layer: CodedLayer) -> str | None:
        """Say what of a layer is not as this says, or None."""
        return (
            self._of_format(layer)
            or self._of_bits(layer)
            or self._of_scales(layer)
            or self._of_zero_points(layer)
        )

    def _of_format(self, layer: CodedLayer) -> str | None:
        wanted = _FORMATS.get(layer.coding, {_PACKED})
        if self.format not in _KNOWN_FORMATS or self.format in wanted:
            return None
        return f"{layer.stored_as}, and {CONFIG} says {self.format}"

    def _of_bits(self, layer: CodedLayer) -> str | None:
        bits, kind = self.weights.get("num_bits"), self.weights.get("type")
        least = _LEAST_BITS if layer.coding == _BYTES else layer.bits  # which may have fewer
        if type(bits) is int and not least <= bits <= layer.bits:
            return f"{layer.stored_as}, and {CONFIG} says num_bits {bits}"
        is_float = layer.coding in FLOAT8 or layer.coding in ("NVFP4", "MXFP4", "MXFP8")
        if kind in ("int", "float") and is_float != (kind == "float"):
            return f"{layer.stored_as}, and {CONFIG} says type {kind}"
        return None

    def _of_scales(self, layer: CodedLayer) -> str | None:
        if "scale" not in layer.parts or "group_of" in layer.parts:
            return None
        *_, rows, columns = (1, 1, *layer.shape)
        strategy, size = self.weights.get("strategy"), self.weights.get("group_size")
        scale = layer.parts["scale"].tensor
        if strategy == "tensor":
            return _unlike(layer, scale, (1, 1), "strategy tensor")
        if strategy == "channel" or (size == -1 and strategy != "tensor"):
            return _unlike(layer, scale, (rows, 1), "a scale for each row")
        if strategy in ("block", None) and (block := self.block):
            return unlike_blocks(layer, scale, block, "block_structure")
        if strategy in ("group", "tensor_group", None) and (known := self.group_size):
            return _unlike(layer, scale, (rows, -(-columns // known)), f"group_size {known}")
        return None

    def _of_zero_points(self, layer: CodedLayer) -> str | None:
        zero = layer.parts.get("zero_point")
        if zero is None or self.weights.get("symmetric") is not True or _are_neutral(layer):
            return None
        return f"{quoted(zero.tensor.name)} is there, and {CONFIG} says symmetric true"


def groups_of(said: Config) -> Iterator[Group]:
    """Give the groups of compressed-tensors, which ModelOpt has, too."""
    groups, usual = said.get("config_groups"), said.get("format")
    for group in groups.values() if isinstance(groups, dict) else ():
        if isinstance(group, dict) and isinstance(group.get("weights"), dict):
            targets = group.get("targets")
            listed = targets if isinstance(targets, list) else []
            named = [each for each in listed if isinstance(each, str)]
            yield Group(named, group["weights"], group.get("format") or usual)


def _means(target: str, module: str) -> bool:
    if not target.startswith("re:"):
        return target == module
    try:
        return re.match(target[3:], module) is not None
    except re.error:
        return False


def block_of(value: object) -> tuple[int, int] | None:
    """Return rows and columns of a block, or None where a value is none."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    rows, columns = (int(n) if type(n) is float and n.is_integer() else n for n in value)
    if type(rows) is not int or type(columns) is not int or min(rows, columns) < 1:
        return None
    return rows, columns


def unlike_blocks(layer: CodedLayer, scale: Tensor, block: tuple[int, int], key: str) -> str | None:
    """Say that a layer has other scales than blocks of a size need, or None."""
    *_, rows, columns = (1, 1, *layer.shape)
    wanted = -(-rows // block[0]), -(-columns // block[1])
    return _unlike(layer, scale, wanted, f"{key} {list(block)}")


def _unlike(layer: CodedLayer, scale: Tensor, wanted: tuple[int, int], what: str) -> str | None:
    """Say that a layer has other scales than these rows and columns, or None."""
    if _counts(layer.shape, scale.shape) == wanted:
        return None
    return (
        f"{quoted(scale.name)} has shape {quoted(list(scale.shape))}, and {CONFIG} says {what}: "
        f"{list(wanted)} for {quoted(layer.name)} of shape {quoted(list(layer.shape))}"
    )


def _counts(shape: Sequence[int], scales: Sequence[int]) -> tuple[int, int]:
    """Return how many rows and columns of scales a matrix has."""
    matrices = product(shape[:-2])
    if product(scales) == 1 or (len(scales) == 1 and scales[0] == matrices > 1):
        return 1, 1
    if len(scales) == 1:
        return scales[0], 1
    return scales[-2], scales[-1]


def _are_neutral(layer: CodedLayer) -> bool:
    """Whether zero-points are those of symmetric codes, which some programs write all the same."""
    zero = layer.parts["zero_point"]
    with zero.open() as array:
        if layer.coding == _BYTES:
            return not array.any()
        rows = product(layer.shape[:-1])
        streams = array.T.copy().view("u1")
        return bool((down(streams, rows, layer.bits) == 2 ** (layer.bits - 1)).all())
