"""Layers that safetensors have as codes: which tensors belong together, and how they decode."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant._core.shapes import product
from pyarrowquant.reading.bitsandbytes import STATES, decode_flat, state_of
from pyarrowquant.reading.config import quantizations_in
from pyarrowquant.reading.decoding import (
    SCALE_DTYPES,
    Blocks,
    Parts,
    decode_affine,
    decode_bytes,
    decode_e2m1,
    decode_packed,
)
from pyarrowquant.reading.numbers import E4M3, E5M2, INT8
from pyarrowquant.reading.scales import READ_FIRST, ScaleError, check_scales, scale_bytes
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import CodedTensor, Tensor, UndecodableTensor

Config = Mapping[str, Any]

_FP8 = {"F8_E4M3": E4M3, "F8_E5M2": E5M2}
_BITS = (2, 3, 4, 5, 6, 8)
_WEIGHT = "weight"
# After a weight's name, or in the place of its end "weight".
_SCALES = ("_scale_inv", "_scale")
_SCALES_BESIDE = ("scale_weight", "qscale_weight", "scale")
# Those are of activations, which nobody quantizes here.
_OF_ACTIVATIONS = (
    "input_scale",
    "input_global_scale",
    "input_zero_point",
    "scale_input",
    "qscale_act",
)
# What codes are named, and what serves them.
_CODES = re.compile(r"(q?weight|weight_packed|_blocks)$")
_SERVING = (
    *(f"weight{end}" for end in (*_SCALES, "_scale_2", "_zero_point", "_shape", "_g_idx")),
    *("weight_global_scale", "weight.absmax", "weight.nested_absmax", "weight.quant_map"),
    *("weight.nested_quant_map", *(f"weight{end}" for end in STATES)),
    *("scales", "biases", "qzeros", "g_idx", "_scales"),
    *_SCALES_BESIDE,
)
_OF_STATES = re.compile(r"(.*weight)\.(?:quant_state|absmax).*", re.DOTALL)
_BLOCK = 128  # of FP8, rows and columns
_MX_GROUP = 32
_NUMBER = re.compile(r"\d+")
# Methods of config.json by which weights of 8 bits have scales, and what these are called.
_METHODS_OF_FLOATS = {
    "fp8": "_scale_inv",
    **dict.fromkeys(("fbgemm_fp8", "compressed-tensors", "modelopt"), "_scale"),
}
_METHODS_OF_INTEGERS = {"compressed-tensors": "_scale"}


class _ProblemError(ValueError):
    """Why codes cannot be decoded."""


class _MissingError(_ProblemError):
    """A tensor is missing without which they cannot."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{quoted(name)} is missing")


@dataclass
class Codes:
    """What is found of a model's codes.

    Attributes
    ----------
    layers : dict of str to Tensor
        By the names of the tensors that have the codes.
    parts : set of str
        Names of tensors that serve others.
    """

    layers: dict[str, Tensor] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)


def find_codes(stored: Mapping[str, Stored], config: Callable[[], Config]) -> Codes:
    """Find the layers that are codes.

    Parameters
    ----------
    stored : mapping of str to Stored
        All tensors of the model.
    config : callable
        Returns what its config.json says; called only where there are codes.
    """
    search = _Search(stored, config)
    # Scales may be of FP8 themselves, so what has such scales comes first.
    kinds = (
        *(search.flat, search.packed, search.blocks),
        *(search.affine, search.int8, search.fp8),
    )
    for kind in kinds:
        for name, one in stored.items():
            if name not in search.found.parts and name not in search.found.layers:
                try:
                    search.add(one, kind(one))
                except _MissingError as error:
                    search.refuse(one.tensor, str(error), str(one.location))
                except ScaleError as error:
                    search.refuse(one.tensor, str(error), str(error.stored.location))
                except _ProblemError as error:
                    search.refuse(one.tensor, str(error))
    for name, one in stored.items():
        if name not in search.found.parts and name not in search.found.layers:
            problem = search.unknown(one.tensor)
            if problem is not None:
                search.refuse(one.tensor, problem)
    return search.found


def _undecodable(
    tensor: Tensor, problem: str, damaged_file: str | None = None
) -> UndecodableTensor:
    return UndecodableTensor(
        tensor.name, tensor.dtype, tensor.shape, tensor.begin, tensor.end, problem, damaged_file
    )


@dataclass(frozen=True)
class _Layer:
    """A layer, and the tensors that its codes are decoded with, by what they are.

    Its scales may be negative if they are `signed`.
    """

    name: str
    shape: tuple[int, ...]
    coding: str
    bits: int
    parts: Parts
    decode: Callable[[Parts], Floats]
    decode_matrix: Callable[[int], Floats] | None = None
    read_mxfp4: Callable[[int], tuple[Bytes, Bytes]] | None = None
    is_turned: bool = False
    signed: bool = False

    def check(self) -> None:
        """Raise ScaleError where it has scales that are none."""
        check_scales(self.parts, self.signed)


def _checking(layer: _Layer) -> _Layer:
    """Return a layer whose scales are looked at when it is decoded."""

    @cache
    def check() -> None:
        try:
            layer.check()
        except ScaleError as error:
            raise ValueError(f"{error.stored.location}: {error}") from None

    def first(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def checked(which: Any) -> Any:
            check()
            return read(which)

        return checked

    return replace(
        layer,
        decode=first(layer.decode),
        decode_matrix=layer.decode_matrix and first(layer.decode_matrix),
        read_mxfp4=layer.read_mxfp4 and first(layer.read_mxfp4),
    )


class _Search:
    """Tells codes by the names, dtypes and shapes of tensors."""

    def __init__(self, stored: Mapping[str, Stored], config: Callable[[], Config]) -> None:
        self._stored = stored
        self._config = config
        self._read_first = READ_FIRST
        self.found = Codes()

    def add(self, codes: Stored, layer: _Layer | None) -> None:
        """Take a layer for what it is."""
        if layer is None:
            return
        tensor = codes.tensor
        if layer.name != tensor.name and layer.name in self._stored:
            raise _ProblemError(f"{quoted(layer.name)} is there too")
        layer = self._with_checked_scales(layer)
        serving = [part.tensor for part in layer.parts.values() if part is not codes]
        stem = layer.name.removesuffix(_WEIGHT)
        self.found.parts.update(
            [part.name for part in serving],
            (name for end in _OF_ACTIVATIONS if (name := stem + end) in self._stored),
        )
        self.found.layers[tensor.name] = CodedTensor(
            layer.name,
            "F32",
            layer.shape,
            tensor.begin,
            tensor.end,
            layer.coding,
            layer.bits,
            sum(part.end - part.begin for part in serving),
            partial(layer.decode, layer.parts),
            layer.decode_matrix,
            layer.read_mxfp4,
            layer.is_turned,
        )

    def _with_checked_scales(self, layer: _Layer) -> _Layer:
        """Check scales now, or where that takes long or goes to a store, when they are needed."""
        size = scale_bytes(layer.parts)
        is_local = all(part.location.is_local for part in layer.parts.values())
        if not is_local or size > self._read_first:
            return _checking(layer)
        self._read_first -= size
        layer.check()
        return layer

    def refuse(self, tensor: Tensor, problem: str, damaged_file: str | None = None) -> None:
        """Take a tensor, and what serves it, for codes that cannot be decoded."""
        self.found.layers[tensor.name] = _undecodable(tensor, problem, damaged_file)
        stem = _CODES.sub("", tensor.name)
        for end in _SERVING:
            serving = self._stored.get(stem + end)
            if serving is not None and serving.tensor.name not in self.found.parts:
                why = f"it serves {quoted(tensor.name)}, which is not decoded: {problem}"
                self.found.layers.setdefault(stem + end, _undecodable(serving.tensor, why))

    def fp8(self, codes: Stored) -> _Layer | None:
        """FP8, with a scale of the tensor, of rows or of blocks; matrices also without one.

        That is, if neither config.json nor other layers say that they have one.
        """
        tensor = codes.tensor
        if tensor.dtype not in _FP8:
            return None
        parts = {"codes": codes}
        blocks = None
        scale = self._scale(tensor)
        if scale is None and len(tensor.shape) < 2:
            return None
        if scale is None:
            self._check_needs_none(tensor, _METHODS_OF_FLOATS)
        if scale is not None:
            parts["scale"] = scale
            if zero := self._stored.get(f"{tensor.name}_zero_point"):
                parts["unused"] = zero  # as the codes are symmetric
            blocks = _blocks(tensor.shape, scale.tensor, self._block(scale.tensor))
        decode = partial(decode_bytes, tensor.shape, _FP8[tensor.dtype], blocks)
        return _Layer(tensor.name, tensor.shape, tensor.dtype, 8, parts, decode)

    def int8(self, codes: Stored) -> _Layer | None:
        """Whole numbers of 8 bits, as int-quantized and naive-quantized have them."""
        tensor = codes.tensor
        if tensor.dtype != "I8":
            return None
        scale = self._stored.get(f"{tensor.name}_scale")
        if scale is None:
            is_weight = len(tensor.shape) > 1 and tensor.name.endswith(f".{_WEIGHT}")
            if is_weight and self._scale(tensor) is None:
                self._check_needs_none(tensor, _METHODS_OF_INTEGERS)
            return None
        parts = {"codes": codes, "scale": scale}
        blocks = _blocks(tensor.shape, scale.tensor, self._block(scale.tensor))
        if zero := self._stored.get(f"{tensor.name}_zero_point"):
            if zero.tensor.dtype != "I8" or zero.tensor.shape != scale.tensor.shape:
                raise _misfit(zero.tensor)
            parts["zero_point"] = zero
        elif self._is_asymmetric(8):
            raise _MissingError(f"{tensor.name}_zero_point")
        decode = partial(decode_bytes, tensor.shape, INT8, blocks)
        return _Layer(tensor.name, tensor.shape, "8-bit integers", 8, parts, decode, signed=True)

    def packed(self, codes: Stored) -> _Layer | None:
        """What compressed-tensors packs: whole numbers in 32 bits, or pairs of E2M1.

        ModelOpt has such pairs by the name of the weight itself, with a second scale.
        """
        tensor = codes.tensor
        if tensor.dtype == "U8" and (factor := self._stored.get(f"{tensor.name}_scale_2")):
            scale = self._part(f"{tensor.name}_scale")
            return self._e2m1(tensor.name, {"codes": codes, "scale": scale, "factor": factor})
        only = self._stored.get(f"{tensor.name}_scale")
        if tensor.dtype == "U8" and only is not None and only.tensor.dtype == "F8_E4M3":
            raise _MissingError(f"{tensor.name}_scale_2")
        name = tensor.name.removesuffix("_packed")
        if name == tensor.name or tensor.dtype not in ("I32", "U8") or len(tensor.shape) < 2:
            return None
        scale = self._part(f"{name}_scale")
        parts = {"codes": codes, "scale": scale}
        if shape := self._stored.get(f"{name}_shape"):
            parts["shape"] = shape
        if tensor.dtype == "U8":
            if scale.tensor.dtype == "F8_E4M3":
                parts["divisor"] = self._part(f"{name}_global_scale")
            return self._e2m1(name, parts)
        return self._integers(name, parts)

    def flat(self, codes: Stored) -> _Layer | None:
        """Codes of 4 bits of bitsandbytes, in blocks of weights whatever the rows are."""
        name = codes.tensor.name
        end = next((end for end in STATES if name + end in self._stored), None)
        if end is None:
            return None
        said = self._stored[name + end]
        try:
            state = state_of(said)
        except ValueError as error:
            raise _ProblemError(str(error)) from None
        weights = product(state.shape)
        if codes.tensor.end - codes.tensor.begin != -(-weights // 2):
            raise _misfit(codes.tensor)
        parts = {"codes": codes, "said": said}
        for key, (part, dtype, size) in state.parts.items():
            parts[key] = self._part(f"{name}.{part}")
            if (parts[key].tensor.dtype, product(parts[key].tensor.shape)) != (dtype, size):
                raise _misfit(parts[key].tensor)
        return _Layer(name, state.shape, STATES[end], 4, parts, partial(decode_flat, state))

    def _integers(self, name: str, parts: dict[str, Stored]) -> _Layer:
        stored = self._part(f"{name}_shape").read()
        shape = tuple(int(size) for size in np.ravel(stored))
        *rows, words = parts["codes"].tensor.shape
        if len(shape) < 2 or list(shape[:-1]) != rows or shape[-1] < 1:
            raise _ProblemError(f"{quoted(name)} has the shape {quoted(list(shape))}")
        columns = shape[-1]
        said = {group["num_bits"] for group in self._weights() if "num_bits" in group}
        widths = [bits for bits in _BITS if -(-columns * bits // 32) == words]
        widths = [bits for bits in widths if bits in said or len(widths) == 1]
        if len(widths) != 1:
            raise _ProblemError(f"{words} words a row do not tell the bits of {columns} codes")
        (bits,) = widths
        groups, group = self._groups(shape, parts["scale"].tensor)
        if zero := self._stored.get(f"{name}_zero_point"):
            wanted = (-(-shape[0] * bits // 32), groups)
            if zero.tensor.dtype != "I32" or zero.tensor.shape != wanted:
                raise _misfit(zero.tensor)
            parts["zero_point"] = zero
        elif self._is_asymmetric(bits):
            raise _MissingError(f"{name}_zero_point")
        if index := self._stored.get(f"{name}_g_idx"):
            if index.tensor.shape != (columns,):
                raise _misfit(index.tensor)
            parts["group_of"] = index
        coding = f"{bits}-bit compressed-tensors"
        decode = partial(decode_packed, shape, bits, group)
        return _Layer(name, shape, coding, bits, parts, decode, signed=True)

    def blocks(self, codes: Stored) -> _Layer | None:
        """MXFP4 as gpt-oss has it: 32 codes in 16 bytes, and an exponent for them."""
        tensor = codes.tensor
        name = tensor.name.removesuffix("_blocks")
        scale = self._stored.get(f"{name}_scales")
        if name == tensor.name or tensor.dtype != "U8":
            return None
        *rows, groups, width = tensor.shape if len(tensor.shape) > 2 else (0, 0, 0)
        if scale is None:
            if 2 * width == _MX_GROUP:
                raise _MissingError(f"{name}_scales")
            return None
        if 2 * width != _MX_GROUP or scale.tensor.shape != (*rows, groups):
            raise _ProblemError(f"{quoted(name)} has blocks and scales of other shapes than MXFP4")
        shape = (*rows, _MX_GROUP * groups)
        layer = self._fp4(name, shape, "MXFP4", {"codes": codes, "scale": scale}, _MX_GROUP)
        return replace(layer, is_turned=len(shape) == 3)

    def affine(self, codes: Stored) -> _Layer | None:
        """What MLX packs: codes in 32 bits, as config.json says."""
        tensor = codes.tensor
        module = tensor.name.removesuffix(f".{_WEIGHT}")
        scale = self._stored.get(f"{module}.scales")
        if module == tensor.name or tensor.dtype != "U32":
            return None
        said = self._config().get("quantization") or self._config().get("quantization_config")
        own = said.get(module) if isinstance(said, Mapping) else None
        said = own if isinstance(own, Mapping) else said
        is_said = isinstance(said, Mapping) and {"bits", "group_size"} <= said.keys()
        if scale is None:
            if is_said:
                raise _MissingError(f"{module}.scales")
            return None
        if not isinstance(said, Mapping) or not is_said:
            raise _ProblemError(
                "no config.json beside it says the bits and group_size of its codes"
            )
        bits, group, mode = said["bits"], said["group_size"], said.get("mode", "affine")
        if bits not in _BITS or type(group) is not int or group < 1:
            raise _ProblemError(f"config.json says {bits} bits in groups of {quoted(group)}")
        *rows, words = tensor.shape
        shape = (*rows, 32 * words // bits)
        if scale.tensor.shape != (*rows, -(-shape[-1] // group)) or shape[-1] % group:
            raise _misfit(scale.tensor)
        parts = {"codes": codes, "scale": scale}
        if mode == "nvfp4":  # whose scales are bytes, as exponents are
            parts["scale"] = replace(scale, tensor=replace(scale.tensor, dtype="F8_E4M3"))
        if mode in ("mxfp4", "nvfp4"):
            return self._fp4(tensor.name, shape, mode.upper(), parts, group)
        if mode == "mxfp8":
            blocks = Blocks((1, product(rows), scale.tensor.shape[-1]), product(rows), 1, group)
            decode = partial(decode_bytes, shape, E4M3, blocks)
            return _Layer(tensor.name, shape, "MXFP8", 8, parts, decode)
        if mode != "affine":
            raise _ProblemError(f"config.json says mode {quoted(mode)}")
        parts["bias"] = self._part(f"{module}.biases")
        if parts["bias"].tensor.shape != scale.tensor.shape:
            raise _misfit(parts["bias"].tensor)
        decode = partial(decode_affine, shape, bits, group)
        return _Layer(tensor.name, shape, f"{bits}-bit MLX", bits, parts, decode, signed=True)

    def unknown(self, tensor: Tensor) -> str | None:
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
        if tensor.dtype in ("U8", "U32", "I32") and name.endswith((".weight", "_blocks")):
            return f"{tensor.dtype} without scales of a known name is not decoded"
        return None

    @cached_property
    def _have_states(self) -> frozenset[str]:
        """The names of weights beside which bitsandbytes has something of how they are coded."""
        found = map(_OF_STATES.fullmatch, self._stored)
        return frozenset(match[1] for match in found if match)

    def _e2m1(self, name: str, parts: dict[str, Stored]) -> _Layer:
        """Pairs of E2M1: NVFP4 where scales are FP8, MXFP4 where they are exponents."""
        *rows, width = parts["codes"].tensor.shape
        shape = (*rows, 2 * width)
        scale = parts["scale"].tensor
        coding = {"F8_E4M3": "NVFP4", "U8": "MXFP4", "F8_E8M0": "MXFP4"}.get(scale.dtype)
        if coding is None:
            raise _misfit(scale)
        group = _MX_GROUP if coding == "MXFP4" else _MX_GROUP // 2
        if scale.shape != (*rows, -(-shape[-1] // group)):
            raise _misfit(scale)
        return self._fp4(name, shape, coding, parts, group)

    def _fp4(
        self,
        name: str,
        shape: tuple[int, ...],
        coding: str,
        parts: Mapping[str, Stored],
        group: int,
    ) -> _Layer:
        def decode_matrix(number: int) -> Floats:
            matrix = {key: part.matrix(number) for key, part in parts.items()}
            return decode_e2m1(shape[1:], group, matrix)

        stacked = len(shape) == 3 and all(
            part.tensor.shape[:1] == shape[:1] for part in parts.values()
        )

        def read_mxfp4(number: int) -> tuple[Bytes, Bytes]:
            codes, exponents = (parts[key].matrix(number).part() for key in ("codes", "scale"))
            return codes.view(np.uint8).reshape(*exponents.shape, group // 2), exponents

        decode = partial(decode_e2m1, shape, group)
        if not stacked:
            return _Layer(name, shape, coding, 4, parts, decode)
        is_mxfp4 = coding == "MXFP4" and parts.keys() == {"codes", "scale"}
        as_it_is = read_mxfp4 if is_mxfp4 and shape[-1] % group == 0 else None
        return _Layer(name, shape, coding, 4, parts, decode, decode_matrix, as_it_is)

    def _part(self, name: str) -> Stored:
        if name not in self._stored:
            raise _MissingError(name)
        return self._stored[name]

    def _scale(self, tensor: Tensor) -> Stored | None:
        """Find the scale of a weight of 8 bits, by any of its names."""
        stem = tensor.name.removesuffix(_WEIGHT)
        names = [tensor.name + end for end in _SCALES]
        if stem != tensor.name:
            names += [stem + end for end in _SCALES_BESIDE]
        return next((self._stored[name] for name in names if name in self._stored), None)

    def _check_needs_none(self, tensor: Tensor, methods: Mapping[str, str]) -> None:
        """Raise where config.json says that a weight has a scale, or others like it have one."""
        said = [found for _, found in quantizations_in(self._config())]
        method = next((one.get("quant_method") for one in said if isinstance(one, dict)), None)
        end = methods.get(method) if isinstance(method, str) else None
        other = self._like_scales.get(_NUMBER.sub("0", tensor.name))
        if other is None and end is None:
            return
        for scales in _SCALES:  # of FP8 themselves, without the codes
            if tensor.name.endswith(scales):
                raise _MissingError(tensor.name.removesuffix(scales))
        weight, scale = other or next(iter(self._like_scales.values()), ("", end))
        raise _MissingError(f"{tensor.name.removesuffix(weight)}{scale}")

    @cached_property
    def _like_scales(self) -> dict[str, tuple[str, str]]:
        """How the names of weights of 8 bits end, and those of their scales instead.

        Weights are alike if their names are but for numbers, which are those of layers.
        """
        ends = {}
        for name, one in self._stored.items():
            if one.tensor.dtype in (*_FP8, "I8") and (scale := self._scale(one.tensor)):
                is_after = scale.tensor.name.startswith(name)
                same = len(name if is_after else name.removesuffix(_WEIGHT))
                ends[_NUMBER.sub("0", name)] = name[same:], scale.tensor.name[same:]
        return ends

    def _is_asymmetric(self, bits: int) -> bool:
        """Whether config.json says that all whole numbers of so many bits have zero-points."""
        said = [
            group.get("symmetric")
            for group in self._weights()
            if group.get("num_bits", bits) == bits and group.get("type", "int") == "int"
        ]
        return bool(said) and all(symmetric is False for symmetric in said)

    def _weights(self) -> Iterator[Config]:
        """What config.json says of the weights of each group of compressed-tensors."""
        said = self._config().get("quantization_config")
        groups = said.get("config_groups") if isinstance(said, dict) else None
        for group in groups.values() if isinstance(groups, dict) else ():
            if isinstance(group, dict) and isinstance(group.get("weights"), dict):
                yield group["weights"]

    def _groups(self, shape: Sequence[int], scale: Tensor) -> tuple[int, int]:
        """Return how many scales a row has, and for how many columns each is."""
        groups, columns = (scale.shape[-1] if scale.shape else 0), shape[-1]
        if scale.shape == (*shape[:-1], groups) and scale.dtype in SCALE_DTYPES:
            sizes = [group.get("group_size") for group in self._weights()]
            for size in (columns, *sizes, columns // max(groups, 1)):
                if type(size) is int and size > 0 and -(-columns // size) == groups:
                    return groups, size
        raise _misfit(scale)

    def _block(self, scale: Tensor) -> tuple[int, int]:
        """Rows and columns of a block, where the number of scales allows several."""
        said = self._config().get("quantization_config") or {}
        for block in (
            said.get("weight_block_size") if isinstance(said, dict) else None,
            *(group.get("block_structure") for group in self._weights()),
        ):
            if isinstance(block, (list, tuple)) and len(block) == 2:
                rows, columns = block
                if type(rows) is int and type(columns) is int and min(rows, columns) > 0:
                    return rows, columns
        sizes = [group.get("group_size") for group in self._weights()]
        usual = _MX_GROUP if scale.dtype in ("U8", "F8_E8M0") else _BLOCK
        return _BLOCK, next((n for n in sizes if type(n) is int and n > 0), usual)


def _misfit(tensor: Tensor) -> _ProblemError:
    return _ProblemError(
        f"{quoted(tensor.name)} has dtype {tensor.dtype} and shape {quoted(list(tensor.shape))}"
    )


def _blocks(shape: Sequence[int], scale: Tensor, usual: tuple[int, int]) -> Blocks:
    blocks = Blocks.of(shape, scale.shape, usual)
    if blocks is None or scale.dtype not in SCALE_DTYPES:
        raise _misfit(scale)
    return blocks
