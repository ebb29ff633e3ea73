"""What config.json says of codes, and whether the tensors are what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from functools import cached_property

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.beside import WEIGHT
from pyarrowquant.reading.coded_layer import CodedLayer, DamageError
from pyarrowquant.reading.config import CONFIG, is_of_mlx, layers_of, quantizations_in
from pyarrowquant.reading.numbers import FLOAT8
from pyarrowquant.reading.said_groups import Config, Group, block_of, groups_of, unlike_blocks
from pyarrowquant.reading.said_methods import kind_problem
from pyarrowquant.reading.said_modules import UnquantizedModules
from pyarrowquant.reading.tensors import Tensor

_BLOCK = 128  # of FP8, rows and columns
_MX_GROUP = 32
_BITSANDBYTES = ("NF4", "FP4")
# Columns of embeddings that are not those of layers.
_OF_EMBEDDINGS = ("word_embed_proj_dim", "embedding_size", "embedding_dim")
# What lists the modules that are not quantized.
_KEYS_OF_FLOATS = {
    "bitsandbytes": "llm_int8_skip_modules",
    "compressed-tensors": "ignore",
    "fp8": "modules_to_not_convert",
    "mxfp4": "modules_to_not_convert",
}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d{1,9})\.")


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
        return [group for said in self._quantizations for group in groups_of(said)]

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

    def key_of_coded(self, module: str) -> str | None:
        """Return the key by which some engines look for floats of a module, which has codes."""
        return None if self._is_decoded_when_loaded else self._unquantized.of_some(module)

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
        if not self._is_decoded_when_loaded and (told := self._unquantized.surely(module)):
            raise DamageError(f"{layer.stored_as}, and {CONFIG} says that it has none: {told}")
        problems = [group.problem(layer) for group in self.groups(layer.name)]
        if problems and all(problems):
            raise DamageError(str(problems[0]))
        if problem := kind_problem(self._quantizations, layer):
            raise DamageError(problem)
        for said in self._quantizations:
            if problem := _flat_problem(said, layer) or _blocks_problem(said, layer):
                raise DamageError(problem)


def _means_all(said: Config, module: str) -> bool:
    """Whether it says that linear layers have codes, or this module by its name."""
    if said.get("quant_method") not in _KEYS_OF_FLOATS or said.get("modules_to_convert"):
        return False
    if (
        said.get("format") == "dense"
        or said.get("quantization_status", "compressed") != "compressed"
    ):
        return False
    groups = list(groups_of(said))
    return not groups or any("Linear" in one.targets or one.names(module) for one in groups)


def _said_block(said: Config) -> tuple[int, int] | None:
    """Return the weight_block_size of FP8, or raise where it is none."""
    value = said.get("weight_block_size")
    block = block_of(value)
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
    return unlike_blocks(layer, layer.parts["scale"].tensor, block, "weight_block_size")
