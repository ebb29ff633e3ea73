"""Codes of MLX: whole numbers in 32 bits, and floats of 4 and 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant._core.shapes import product
from pyarrowquant.reading.beside import BITS, WEIGHT, Beside
from pyarrowquant.reading.coded_kinds import fp4_layer, matrix_decoder
from pyarrowquant.reading.coded_layer import CodedLayer, DamageError, ProblemError, misfit, missing
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.decoding import Blocks, Parts, decode_affine, decode_bytes
from pyarrowquant.reading.numbers import E4M3
from pyarrowquant.reading.said import Said
from pyarrowquant.reading.stored import Stored

_AFFINE = "affine"
_EMBEDDINGS = "embed_tokens"
_SCALES_OF_AFFINE = ("F32", "F16", "BF16")
_FLOATS = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}  # bits and group_size


def mlx_layer(codes: Stored, beside: Beside, said_of_all: Said) -> CodedLayer | None:
    """What MLX packs: codes in 32 bits, as config.json says."""
    tensor = codes.tensor
    module = tensor.name.removesuffix(f".{WEIGHT}")
    scale = beside.find(f"{module}.scales")
    if module == tensor.name:
        return None
    if tensor.dtype != "U32":
        if scale is not None and said_of_all.is_of_mlx_with(module, beside.stored):
            raise misfit(tensor, f"be U32, as {quoted(scale.tensor.name)} is beside it")
        return None
    said = said_of_all.mlx(module)
    if scale is None:
        if said is not None:
            raise missing(f"{module}.scales")
        return None
    if said is None:
        raise ProblemError(f"no {CONFIG} beside it says the bits and group_size of its codes")
    bits, group, mode = said["bits"], said["group_size"], said.get("mode", "affine")
    if bits not in BITS or type(group) is not int or group < 1:
        raise DamageError(
            f"{CONFIG} says bits {quoted(bits)} and group_size {quoted(group)} of {module}"
        )
    *rows, words = tensor.shape
    shape = (*rows, 32 * words // bits)
    if scale.tensor.shape != (*rows, -(-shape[-1] // group)) or shape[-1] % group:
        raise DamageError(
            f"{quoted(tensor.name)} has shape {list(tensor.shape)} and "
            f"{quoted(scale.tensor.name)} {list(scale.tensor.shape)}, and {CONFIG} says bits "
            f"{bits} and group_size {group}"
        )
    columns = said_of_all.columns if module.endswith(_EMBEDDINGS) else None
    if columns not in (None, shape[-1]) and columns in (32 * words // other for other in BITS):
        raise DamageError(
            f"{quoted(tensor.name)} has {words} words a row, which are {shape[-1]} codes of {bits} "
            f"bits, and {CONFIG} says hidden_size {columns}"
        )
    if mode != _AFFINE and mode not in _FLOATS:
        raise ProblemError(f"{CONFIG} says mode {quoted(mode)}")
    if (bits, group) != _FLOATS.get(mode, (bits, group)):
        raise DamageError(f"{CONFIG} says mode {mode}, bits {bits} and group_size {group}")
    if scale.tensor.dtype not in (_SCALES_OF_AFFINE if mode == _AFFINE else ("U8",)):
        raise DamageError(
            f"{quoted(scale.tensor.name)} has dtype {scale.tensor.dtype}, and {CONFIG} says "
            f"mode {mode}"
        )
    parts = {"codes": codes, "scale": scale}
    if mode == "nvfp4":  # whose scales are bytes, as exponents are
        parts["scale"] = replace(scale, tensor=replace(scale.tensor, dtype="F8_E4M3"))
    if mode in ("mxfp4", "nvfp4"):
        return fp4_layer(tensor.name, shape, mode.upper(), parts, group)
    if mode == "mxfp8":
        coding, decoder = "MXFP8", partial(_mxfp8, group)
    else:
        parts["bias"] = beside.part(f"{module}.biases")
        bias = parts["bias"].tensor
        if bias.shape != scale.tensor.shape or bias.dtype not in _SCALES_OF_AFFINE:
            raise misfit(bias, f"be floats of the shape of {quoted(scale.tensor.name)}")
        coding, decoder = f"{bits}-bit MLX", partial(_affine, bits, group)
    matrix = matrix_decoder(shape, parts, decoder) if len(shape) == 3 else None
    signed = mode == _AFFINE
    return CodedLayer(
        tensor.name, shape, coding, bits, parts, decoder(shape), matrix, signed=signed
    )


def _affine(bits: int, group: int, shape: tuple[int, ...]) -> Callable[[Parts], Floats]:
    return partial(decode_affine, shape, bits, group)


def _mxfp8(group: int, shape: tuple[int, ...]) -> Callable[[Parts], Floats]:
    rows = product(shape[:-1])
    blocks = Blocks((1, rows, -(-shape[-1] // group)), rows, 1, group)
    return partial(decode_bytes, shape, E4M3, blocks)
