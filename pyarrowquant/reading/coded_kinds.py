"""Layers of some kinds of codes, given the tensors that these are decoded with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant._core.shapes import product
from pyarrowquant.reading.beside import Beside
from pyarrowquant.reading.bitsandbytes import check_flat, decode_flat, state_of
from pyarrowquant.reading.coded_layer import CodedLayer, DamageError, misfit
from pyarrowquant.reading.decoding import Parts, decode_e2m1
from pyarrowquant.reading.stored import Stored

MX_GROUP = 32
_FLOATS = ("F32", "F16", "BF16")


def e2m1_layer(name: str, parts: Mapping[str, Stored]) -> CodedLayer:
    """Pairs of E2M1: NVFP4 where scales are FP8, MXFP4 where they are exponents."""
    *rows, width = parts["codes"].tensor.shape
    shape = (*rows, 2 * width)
    scale = parts["scale"].tensor
    coding = {"F8_E4M3": "NVFP4", "U8": "MXFP4", "F8_E8M0": "MXFP4"}.get(scale.dtype)
    if coding is None:
        raise misfit(scale, "be F8_E4M3, U8 or F8_E8M0")
    group = MX_GROUP if coding == "MXFP4" else MX_GROUP // 2
    wanted = [*rows, -(-shape[-1] // group)]
    if list(scale.shape) != wanted:
        raise misfit(scale, f"be of shape {wanted}, for groups of {group} codes")
    for key in ("divisor", "factor"):
        if key in parts:
            tensor = parts[key].tensor
            if product(tensor.shape) not in (1, product(rows[:-1])) or tensor.dtype not in _FLOATS:
                raise misfit(tensor, "be one number, a float, or one for each matrix of a stack")
    return fp4_layer(name, shape, coding, parts, group)


def fp4_layer(
    name: str,
    shape: tuple[int, ...],
    coding: str,
    parts: Mapping[str, Stored],
    group: int,
) -> CodedLayer:
    stacked = len(shape) == 3 and all(part.tensor.shape[:1] == shape[:1] for part in parts.values())

    def read_mxfp4(number: int) -> tuple[Bytes, Bytes]:
        codes, exponents = (parts[key].matrix(number).part() for key in ("codes", "scale"))
        return codes.view(np.uint8).reshape(*exponents.shape, group // 2), exponents

    def decoder(shape: tuple[int, ...]) -> Callable[[Parts], Floats]:
        return partial(decode_e2m1, shape, group)

    if not stacked:
        return CodedLayer(name, shape, coding, 4, parts, decoder(shape))
    is_mxfp4 = coding == "MXFP4" and parts.keys() == {"codes", "scale"}
    as_it_is = read_mxfp4 if is_mxfp4 and shape[-1] % group == 0 else None
    matrix = matrix_decoder(shape, parts, decoder)
    return CodedLayer(name, shape, coding, 4, parts, decoder(shape), matrix, as_it_is)


def matrix_decoder(
    shape: tuple[int, ...],
    parts: Parts,
    decoder: Callable[[tuple[int, ...]], Callable[[Parts], Floats]],
) -> Callable[[int], Floats]:
    """Return what decodes one of the matrices of a stack by itself.

    Parameters
    ----------
    shape : tuple of int
        Of the stack.
    parts : mapping of str to Stored
        Each has as many matrices.
    decoder : callable
        Returns what decodes codes of a shape.
    """

    def decode(number: int) -> Floats:
        return decoder(shape[1:])({key: part.matrix(number) for key, part in parts.items()})

    return decode


def flat_layer(codes: Stored, said: Stored, coding: str, beside: Beside) -> CodedLayer:
    """Codes of bitsandbytes, by what a tensor says of them."""
    name = codes.tensor.name
    try:
        state = state_of(said)
    except ValueError as error:
        raise DamageError(str(error), str(said.location)) from None
    weights = product(state.shape)
    if codes.tensor.end - codes.tensor.begin != -(-weights // 2):
        shape = quoted(list(state.shape))
        raise misfit(codes.tensor, f"be {-(-weights // 2)} bytes, for weights of shape {shape}")
    parts = {"codes": codes, "said": said}
    for key, (part, dtype, size) in state.parts.items():
        parts[key] = beside.part(f"{name}.{part}")
        if (parts[key].tensor.dtype, product(parts[key].tensor.shape)) != (dtype, size):
            by = f"{quoted(said.tensor.name)}, whose blocks have {state.block} weights"
            raise misfit(parts[key].tensor, f"be {size} of {dtype} by {by}")
    return CodedLayer(
        name,
        state.shape,
        coding,
        4,
        parts,
        partial(decode_flat, state, coding),
        own_check=partial(check_flat, state, coding),
    )
