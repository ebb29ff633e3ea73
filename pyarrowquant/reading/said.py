"""What config.json says of codes, and whether the tensors are what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.shapes import product
from pyarrowquant.reading.beside import WEIGHT
from pyarrowquant.reading.coded_layer import CodedLayer, DamageError
from pyarrowquant.reading.config import CONFIG, is_of_mlx, layers_of, quantizations_in
from pyarrowquant.reading.decoding import down
from pyarrowquant.reading.numbers import FLOAT8
from pyarrowquant.reading.said_methods import kind_problem
from pyarrowquant.reading.said_modules import UnquantizedModules
from pyarrowquant.reading.tensors import Tensor

Config = Mapping[str, Any]

_BLOCK = 128  # of FP8, rows and columns
_MX_GROUP = 32
_BITSANDBYTES = ("NF4", "FP4")
# Columns of embeddings that are not those of layers.
_OF_EMBEDDINGS = ("word_embed_proj_dim", "embedding_size", "embedding_dim")
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
# What lists the modules that are not quantized.
_KEYS_OF_FLOATS = {
    "bitsandbytes": "llm_int8_skip_modules",
    "compressed-tensors": "ignore",
    "fp8": "modules_to_not_convert",
}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d{1,9})\.")
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
        return _block_of(self.weights.get("block_structure"))

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
            return _unlike_blocks(layer, scale, block, "block_structure")
        if strategy in ("group", "tensor_group", None) and (known := self.group_size):
            return _unlike(layer, scale, (rows, -(-columns // known)), f"group_size {known}")
        return None

    def _of_zero_points(self, layer: CodedLayer) -> str | None:
        zero = layer.parts.get("zero_point")
        if zero is None or self.weights.get("symmetric") is not True or _are_neutral(layer):
            return None
        return f"{quoted(zero.tensor.name)} is there, and {CONFIG} says symmetric true"


class Said:
    """What a config.json says of codes.

    Parameters
    ----------
    config : callable
        Returns it; called only where there are codes.
    """

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config

    @cached_property
    def _quantizations(self) -> list[Config]:
        found = (each for _, each in quantizations_in(self._config()))
        return [each for each in found if isinstance(each, dict)]

    @cached_property
    def method(self) -> str | None:
        """The quant_method."""
        found = next((one.get("quant_method") for one in self._quantizations), None)
        return found if isinstance(found, str) else None

    @property
    def is_of_mlx(self) -> bool:
        """Whether MLX has quantized the model."""
        return any(map(is_of_mlx, self._quantizations))

    def is_of_mlx_with(self, module: str, names: Container[str]) -> bool:
        """Whether MLX has quantized the model, and a module has what it writes beside codes."""
        said = self.mlx(module)
        is_affine = said is None or said.get("mode", "affine") == "affine"
        needed = ("scales", "biases") if is_affine else ("scales",)
        return self.is_of_mlx and all(f"{module}.{end}" in names for end in needed)

    @cached_property
    def key_of_codes(self) -> str | None:
        """The key by which weights that have a scale are stored as codes, and what it says."""
        for said in self._quantizations:
            method, status = said.get("quant_method"), said.get("quantization_status")
            if method == "fp8":
                return "quant_method fp8"
            is_dense = method != "compressed-tensors" or said.get("format") == "dense"
            if status == "compressed" and not is_dense:
                return "quantization_status compressed"
        return None

    @cached_property
    def _groups(self) -> list[Group]:
        return [group for said in self._quantizations for group in _groups_of(said)]

    def groups(self, layer: str) -> list[Group]:
        """Return those that may be meant for a layer: by its name, or else all.

        Files do not always have the names that config.json speaks of, nor the classes.
        """
        if len(self._groups) < 2:
            return self._groups
        module = layer.removesuffix(f".{WEIGHT}")
        return [group for group in self._groups if group.names(module)] or self._groups

    def widths(self, layer: str) -> set[int]:
        """Return which bits codes of a layer may have."""
        found = (group.weights.get("num_bits") for group in self.groups(layer))
        return {bits for bits in found if type(bits) is int}

    def mlx(self, module: str) -> Config | None:
        """Return what MLX says of a module: its own, or that of all."""
        said = self._config().get("quantization") or self._config().get("quantization_config")
        own = said.get(module) if isinstance(said, Mapping) else None
        found = own if isinstance(own, Mapping) else said
        if isinstance(found, Mapping) and {"bits", "group_size"} <= found.keys():
            return found
        return None

    @cached_property
    def columns(self) -> int | None:
        """Columns of the embeddings of tokens, where nothing says that these differ from others."""
        config = self._config()
        text = config.get("text_config")
        said = {**config, **text} if isinstance(text, dict) else config
        size = said.get("hidden_size")
        is_plain = said.keys().isdisjoint(_OF_EMBEDDINGS)
        return size if type(size) is int and size > 0 and is_plain else None

    def is_asymmetric(self, layer: str, bits: int) -> bool:
        """Whether it says that a layer of whole numbers of so many bits has zero-points."""
        said = [
            group.weights.get("symmetric")
            for group in self.groups(layer)
            if group.weights.get("num_bits", bits) == bits
            and group.weights.get("type", "int") == "int"
        ]
        return bool(said) and all(symmetric is False for symmetric in said)

    def block(self, layer: str, scale: Tensor) -> tuple[int, int]:
        """Rows and columns of a block, where the number of scales allows several."""
        groups = self.groups(layer)
        sizes = map(_said_block, self._quantizations)
        for block in (*sizes, *(group.block for group in groups)):
            if block is not None:
                return block
        usual = _MX_GROUP if scale.dtype in ("U8", "F8_E8M0") else _BLOCK
        return _BLOCK, next((size for group in groups if (size := group.group_size)), usual)

    @cached_property
    def _unquantized(self) -> UnquantizedModules:
        return UnquantizedModules(self._quantizations, self._config())

    @cached_property
    def _is_decoded_when_loaded(self) -> bool:
        """Whether transformers decodes all codes, whatever modules are said to have such."""
        return any(said.get("dequantize") is True for said in self._quantizations)

    def is_float_by_mistake(self, module: str) -> bool:
        """Whether engines look for codes of a module, which is of floats."""
        if self._is_decoded_when_loaded or self._unquantized.perhaps(module):
            return False
        number, layers = _LAYER.search(module), layers_of(self._config())
        if number is not None and layers is not None and int(number[1]) >= layers:
            return False  # which engines leave out, or predict more tokens with
        return any(_means_all(said, module) for said in self._quantizations)

    @property
    def means_heads(self) -> bool:
        """Whether a head, too, has codes unless it is listed.

        transformers leaves heads out for bitsandbytes where there is no list at all.
        """
        listed = [said.get("llm_int8_skip_modules") for said in self._quantizations]
        return self.method == "compressed-tensors" or any(isinstance(e, list) for e in listed)

    @property
    def key_of_floats(self) -> str | None:
        """The key that lists modules of floats."""
        return _KEYS_OF_FLOATS.get(self.method or "")

    def check(self, layer: CodedLayer) -> None:
        """Raise where a layer is not what this says."""
        module = layer.name.removesuffix(f".{WEIGHT}")
        if not self._is_decoded_when_loaded and (key := self._unquantized.surely(module)):
            raise DamageError(f"{layer.stored_as}, and {CONFIG} says that it has none: {key}")
        problems = [group.problem(layer) for group in self.groups(layer.name)]
        if problems and all(problems):
            raise DamageError(str(problems[0]))
        if problem := kind_problem(self._quantizations, layer):
            raise DamageError(problem)
        for said in self._quantizations:
            if problem := _flat_problem(said, layer) or _blocks_problem(said, layer):
                raise DamageError(problem)


def _groups_of(said: Config) -> Iterator[Group]:
    """Give the groups of compressed-tensors, which ModelOpt has, too."""
    groups, usual = said.get("config_groups"), said.get("format")
    for group in groups.values() if isinstance(groups, dict) else ():
        if isinstance(group, dict) and isinstance(group.get("weights"), dict):
            targets = group.get("targets")
            listed = targets if isinstance(targets, list) else []
            named = [each for each in listed if isinstance(each, str)]
            yield Group(named, group["weights"], group.get("format") or usual)


def _means_all(said: Config, module: str) -> bool:
    """Whether it says that linear layers have codes, or this module by its name."""
    if said.get("quant_method") not in _KEYS_OF_FLOATS or said.get("modules_to_convert"):
        return False
    if (
        said.get("format") == "dense"
        or said.get("quantization_status", "compressed") != "compressed"
    ):
        return False
    groups = list(_groups_of(said))
    return not groups or any("Linear" in one.targets or one.names(module) for one in groups)


def _means(target: str, module: str) -> bool:
    if not target.startswith("re:"):
        return target == module
    try:
        return re.match(target[3:], module) is not None
    except re.error:
        return False


def _block_of(value: object) -> tuple[int, int] | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    rows, columns = (int(n) if type(n) is float and n.is_integer() else n for n in value)
    if type(rows) is not int or type(columns) is not int or min(rows, columns) < 1:
        return None
    return rows, columns


def _said_block(said: Config) -> tuple[int, int] | None:
    """Return the weight_block_size of FP8, or raise where it is none."""
    value = said.get("weight_block_size")
    block = _block_of(value)
    if value is not None and block is None:
        raise DamageError(
            f"{CONFIG} says weight_block_size {quoted(value)}, which must be two whole numbers "
            "of 1 or more, such as [128, 128]"
        )
    return block


def _flat_problem(said: Config, layer: CodedLayer) -> str | None:
    """Say that codes of bitsandbytes are not those that config.json says, or None."""
    if layer.coding not in _BITSANDBYTES:
        return None
    kind, double = said.get("bnb_4bit_quant_type"), said.get("bnb_4bit_use_double_quant")
    if isinstance(kind, str) and kind.lower() != layer.coding.lower():
        return f"{layer.stored_as}, and {CONFIG} says bnb_4bit_quant_type {quoted(kind)}"
    if said.get("load_in_8bit") is True:
        return f"{layer.stored_as}, and {CONFIG} says load_in_8bit true"
    scales = layer.parts["scales"].tensor
    if isinstance(double, bool) and double != (scales.dtype == "U8"):
        return (
            f"{quoted(scales.name)} has dtype {scales.dtype}, and {CONFIG} says "
            f"bnb_4bit_use_double_quant {str(double).lower()}"
        )
    return None


def _blocks_problem(said: Config, layer: CodedLayer) -> str | None:
    """Say that scales are not those of the blocks of FP8 that config.json says, or None."""
    if layer.coding not in (*FLOAT8, "MXFP8") or "scale" not in layer.parts:
        return None
    block = _said_block(said)
    if block is None:
        return None
    return _unlike_blocks(layer, layer.parts["scale"].tensor, block, "weight_block_size")


def _unlike_blocks(
    layer: CodedLayer, scale: Tensor, block: tuple[int, int], key: str
) -> str | None:
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
