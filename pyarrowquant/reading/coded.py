"""Layers that safetensors have as codes: which tensors belong together, and how they decode."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.beside import (
    BITS,
    OF_FLOATS,
    OF_INTEGERS,
    SCALES,
    SCALES_BESIDE,
    WEIGHT,
    Beside,
)
from pyarrowquant.reading.bitsandbytes import STATES
from pyarrowquant.reading.coded_kinds import MX_GROUP, e2m1_layer, flat_layer, fp4_layer
from pyarrowquant.reading.coded_layer import (
    CodedLayer,
    DamageError,
    ProblemError,
    checked_when_decoded,
    misfit,
    missing,
)
from pyarrowquant.reading.coded_mlx import mlx_layer
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.decoding import (
    SCALE_DTYPES,
    Blocks,
    decode_bytes,
    decode_packed,
)
from pyarrowquant.reading.found_codes import Codes, Unnamed, find_mistakes
from pyarrowquant.reading.numbers import FLOAT8, INT8
from pyarrowquant.reading.orphans import lone_problem
from pyarrowquant.reading.said import Said
from pyarrowquant.reading.said_groups import Config
from pyarrowquant.reading.scales import READ_FIRST, ScaleError, scale_bytes
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import CodedTensor, Tensor, UndecodableTensor
from pyarrowquant.reading.unknown_codes import UnknownCodes

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
    *(f"weight{end}" for end in (*SCALES, "_scale_2", "_zero_point", "_shape", "_g_idx")),
    *("weight_global_scale", "weight.absmax", "weight.nested_absmax", "weight.quant_map"),
    *("weight.nested_quant_map", *(f"weight{end}" for end in STATES)),
    *("scales", "biases", "qzeros", "g_idx", "_scales"),
    *SCALES_BESIDE,
)
_EXPONENTS = ("U8", "F8_E8M0")


def find_codes(
    stored: Mapping[str, Stored], config: Callable[[], Config], unnamed: Unnamed | None = None
) -> Codes:
    """Find the layers that are codes.

    Parameters
    ----------
    stored : mapping of str to Stored
        All tensors of the model.
    config : callable
        Returns what its config.json says; called only where there are codes.
    unnamed : Unnamed, optional
        What its index leaves out.
    """
    search = _Search(stored, Said(config), unnamed)
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
                except DamageError as error:
                    search.refuse(one.tensor, str(error), error.file or str(one.location))
                except ScaleError as error:
                    search.refuse(one.tensor, str(error), str(error.stored.location))
                except ProblemError as error:
                    search.refuse(one.tensor, str(error))
    unknown = UnknownCodes(stored)
    for name, one in stored.items():
        if name not in search.found.parts and name not in search.found.layers:
            if problem := unknown.problem(one.tensor):
                search.refuse(one.tensor, problem)
            elif problem := lone_problem(one.tensor, stored, search.said):
                search.refuse(one.tensor, problem, str(one.location))
    find_mistakes(search.found, stored, search.said)
    return search.found


def _undecodable(tensor: Tensor, problem: str, **more: Any) -> UndecodableTensor:
    return UndecodableTensor(
        tensor.name, tensor.dtype, tensor.shape, tensor.begin, tensor.end, problem, **more
    )


class _Search:
    """Tells codes by the names, dtypes and shapes of tensors."""

    def __init__(self, stored: Mapping[str, Stored], said: Said, unnamed: Unnamed | None) -> None:
        self._stored = stored
        self._beside = Beside(stored)
        self.said = said
        self._unnamed = unnamed
        self._read_first = READ_FIRST
        self.found = Codes()

    def add(self, codes: Stored, layer: CodedLayer | None) -> None:
        """Take a layer for what it is."""
        if layer is None:
            return
        tensor = codes.tensor
        if layer.name != tensor.name and layer.name in self._stored:
            raise ProblemError(f"{quoted(layer.name)} is there too")
        self._check_named(layer)
        self.said.check(layer)
        layer = self._with_checked_scales(layer)
        serving = [part.tensor for part in layer.parts.values() if part is not codes]
        stem = layer.name.removesuffix(WEIGHT)
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

    def _check_named(self, layer: CodedLayer) -> None:
        """Raise where the index names only some of the tensors of a layer."""
        if self._unnamed is None:
            return
        names = [part.tensor.name for part in layer.parts.values()]
        without = [name for name in names if name in self._unnamed.names]
        if without and len(without) < len(names):
            named = next(name for name in names if name not in without)
            raise DamageError(
                f"{quoted(without[0])} is not named, and {quoted(named)} is",
                str(self._unnamed.index),
            )

    def _with_checked_scales(self, layer: CodedLayer) -> CodedLayer:
        """Check scales now, or where that takes long or goes to a store, when they are needed."""
        size = scale_bytes(layer.parts)
        is_local = all(part.location.is_local for part in layer.parts.values())
        if not is_local or size > self._read_first:
            return checked_when_decoded(layer)
        self._read_first -= size
        layer.check()
        return layer

    def refuse(self, tensor: Tensor, problem: str, damaged_file: str | None = None) -> None:
        """Take a tensor, and what serves it, for codes that cannot be decoded."""
        self.found.layers[tensor.name] = _undecodable(tensor, problem, damaged_file=damaged_file)
        stem = _CODES.sub("", tensor.name)
        for end in _SERVING:
            serving = self._stored.get(stem + end)
            if serving is not None and serving.tensor.name not in self.found.parts:
                why = f"it serves {quoted(tensor.name)}, which is not decoded: {problem}"
                left = _undecodable(serving.tensor, why, serves=True)
                self.found.layers.setdefault(stem + end, left)

    def fp8(self, codes: Stored) -> CodedLayer | None:
        """FP8, with a scale of the tensor, of rows or of blocks; matrices also without one.

        That is, if neither config.json nor other layers say that they have one.
        """
        tensor = codes.tensor
        if tensor.dtype not in FLOAT8:
            return None
        parts = {"codes": codes}
        blocks = None
        scale = self._beside.scale(tensor)
        if scale is None and len(tensor.shape) < 2:
            return None
        if scale is None:
            self._beside.check_needs_none(tensor, self.said.method, OF_FLOATS)
        if scale is not None:
            parts["scale"] = scale
            if zero := self._stored.get(f"{tensor.name}_zero_point"):
                parts["unused"] = zero  # as the codes are symmetric
            blocks = self._blocks(tensor, scale.tensor)
        decode = partial(decode_bytes, tensor.shape, FLOAT8[tensor.dtype], blocks)
        coding = "MXFP8" if _is_mx(scale, blocks) else tensor.dtype
        return CodedLayer(tensor.name, tensor.shape, coding, 8, parts, decode)

    def int8(self, codes: Stored) -> CodedLayer | None:
        """Whole numbers of 8 bits, as int-quantized and naive-quantized have them."""
        tensor = codes.tensor
        if tensor.dtype != "I8":
            return None
        scale = self._stored.get(f"{tensor.name}_scale")
        if scale is None:
            is_weight = len(tensor.shape) > 1 and tensor.name.endswith(f".{WEIGHT}")
            if is_weight and self._beside.scale(tensor) is None:
                self._beside.check_needs_none(tensor, self.said.method, OF_INTEGERS)
            return None
        parts = {"codes": codes, "scale": scale}
        blocks = self._blocks(tensor, scale.tensor)
        if zero := self._stored.get(f"{tensor.name}_zero_point"):
            if zero.tensor.dtype != "I8" or zero.tensor.shape != scale.tensor.shape:
                raise misfit(zero.tensor, f"be I8 of the shape of {quoted(scale.tensor.name)}")
            parts["zero_point"] = zero
        elif self.said.is_asymmetric(tensor.name, 8):
            raise missing(f"{tensor.name}_zero_point")
        decode = partial(decode_bytes, tensor.shape, INT8, blocks)
        return CodedLayer(
            tensor.name, tensor.shape, "8-bit integers", 8, parts, decode, signed=True
        )

    def packed(self, codes: Stored) -> CodedLayer | None:
        """What compressed-tensors packs: whole numbers in 32 bits, or pairs of E2M1.

        ModelOpt has such pairs by the name of the weight itself, with a second scale.
        """
        tensor = codes.tensor
        if tensor.dtype == "U8" and (factor := self._stored.get(f"{tensor.name}_scale_2")):
            scale = self._beside.part(f"{tensor.name}_scale")
            return e2m1_layer(tensor.name, {"codes": codes, "scale": scale, "factor": factor})
        only = self._stored.get(f"{tensor.name}_scale")
        if tensor.dtype == "U8" and only is not None and only.tensor.dtype == "F8_E4M3":
            raise missing(f"{tensor.name}_scale_2")
        name = tensor.name.removesuffix("_packed")
        if name == tensor.name or tensor.dtype not in ("I32", "U8") or len(tensor.shape) < 2:
            return None
        scale = self._beside.part(f"{name}_scale")
        parts = {"codes": codes, "scale": scale}
        if shape := self._stored.get(f"{name}_shape"):
            parts["shape"] = shape
        if tensor.dtype == "U8":
            if scale.tensor.dtype == "F8_E4M3":
                parts["divisor"] = self._beside.part(f"{name}_global_scale")
            self._check_pairs(name, tensor, scale.tensor)
            return e2m1_layer(name, parts)
        return self._integers(name, parts)

    def _check_pairs(self, name: str, codes: Tensor, scale: Tensor) -> None:
        """Raise where bytes are floats of other bits than pairs of E2M1, as config.json says."""
        columns, groups = codes.shape[-1], scale.shape[-1] if scale.shape else 0
        for bits in self.said.widths(name):
            if bits != 4 and groups and 8 * columns == bits * groups * MX_GROUP:
                raise ProblemError(f"floats of {bits} bits are not decoded")

    def flat(self, codes: Stored) -> CodedLayer | None:
        """Codes of 4 bits of bitsandbytes, in blocks of weights whatever the rows are."""
        name = codes.tensor.name
        end = next((end for end in STATES if name + end in self._stored), None)
        if end is None:
            return None
        return flat_layer(codes, self._stored[name + end], STATES[end], self._beside)

    def _integers(self, name: str, parts: dict[str, Stored]) -> CodedLayer:
        stored = self._beside.part(f"{name}_shape").read()
        shape = tuple(int(size) for size in np.ravel(stored))
        codes = parts["codes"].tensor
        *rows, words = codes.shape
        if len(shape) < 2 or list(shape[:-1]) != rows or shape[-1] < 1:
            raise misfit(codes, f"have the rows of {quoted(f'{name}_shape')}, {list(shape)}")
        columns = shape[-1]
        said = self.said.widths(name)
        widths = [bits for bits in BITS if -(-columns * bits // 32) == words]
        widths = [bits for bits in widths if bits in said or len(widths) == 1]
        if len(widths) != 1:
            for bits in said.difference(BITS):
                if -(-columns * bits // 32) == words:
                    raise ProblemError(f"codes of {bits} bits are not decoded")
            raise DamageError(
                f"{quoted(codes.name)} has {words} words a row, which do not tell the bits of "
                f"{columns} codes, nor does {CONFIG}"
            )
        (bits,) = widths
        groups, group = self._groups(name, shape, parts["scale"].tensor)
        if zero := self._stored.get(f"{name}_zero_point"):
            wanted = (-(-shape[0] * bits // 32), groups)
            if zero.tensor.dtype != "I32" or zero.tensor.shape != wanted:
                raise misfit(zero.tensor, f"be I32 of shape {list(wanted)}")
            parts["zero_point"] = zero
        elif self.said.is_asymmetric(name, bits):
            raise missing(f"{name}_zero_point")
        if index := self._stored.get(f"{name}_g_idx"):
            if index.tensor.shape != (columns,):
                raise misfit(index.tensor, f"be of shape {[columns]}")
            parts["group_of"] = index
        coding = f"{bits}-bit compressed-tensors"
        decode = partial(decode_packed, shape, bits, group)
        return CodedLayer(name, shape, coding, bits, parts, decode, signed=True)

    def blocks(self, codes: Stored) -> CodedLayer | None:
        """MXFP4 as gpt-oss has it: 32 codes in 16 bytes, and an exponent for them."""
        tensor = codes.tensor
        name = tensor.name.removesuffix("_blocks")
        scale = self._stored.get(f"{name}_scales")
        has_exponents = scale is not None and scale.tensor.dtype in _EXPONENTS
        if name == tensor.name or (tensor.dtype != "U8" and not has_exponents):
            return None
        *rows, groups, width = tensor.shape if len(tensor.shape) > 2 else (0, 0, 0)
        if scale is None:
            if 2 * width == MX_GROUP:
                raise missing(f"{name}_scales")
            return None
        if 2 * width != MX_GROUP or tensor.dtype != "U8":
            raise misfit(tensor, f"be U8, in blocks of {MX_GROUP // 2}")
        if scale.tensor.shape != (*rows, groups) or not has_exponents:
            raise misfit(scale.tensor, f"be U8 of shape {[*rows, groups]} by its blocks")
        shape = (*rows, MX_GROUP * groups)
        layer = fp4_layer(name, shape, "MXFP4", {"codes": codes, "scale": scale}, MX_GROUP)
        return replace(layer, is_turned=len(shape) == 3)

    def affine(self, codes: Stored) -> CodedLayer | None:
        """What MLX packs, as config.json says."""
        return mlx_layer(codes, self._beside, self.said)

    def _blocks(self, codes: Tensor, scale: Tensor) -> Blocks:
        usual = self.said.block(codes.name, scale)
        blocks = Blocks.of(codes.shape, scale.shape, usual)
        if blocks is None or scale.dtype not in SCALE_DTYPES:
            raise misfit(
                scale,
                f"be scales of {quoted(codes.name)} of shape {list(codes.shape)}, whose blocks are "
                f"{list(usual)}",
            )
        return blocks

    def _groups(self, name: str, shape: Sequence[int], scale: Tensor) -> tuple[int, int]:
        """Return how many scales a row has, and for how many columns each is."""
        groups, columns = (scale.shape[-1] if scale.shape else 0), shape[-1]
        if scale.shape == (*shape[:-1], groups) and scale.dtype in SCALE_DTYPES:
            sizes = [group.group_size for group in self.said.groups(name)]
            for size in (columns, *sizes, columns // max(groups, 1)):
                if size and -(-columns // size) == groups:
                    return groups, size
        raise misfit(scale, f"have scales for groups of columns of the shape {list(shape)}")


def _is_mx(scale: Stored | None, blocks: Blocks | None) -> bool:
    """Whether scales are exponents of groups within rows, as of MXFP8."""
    if scale is None or blocks is None:
        return False
    is_of_rows = blocks.rows == 1 and blocks.columns == MX_GROUP
    return scale.tensor.dtype in _EXPONENTS and is_of_rows
