"""A layer that is codes: the tensors that it is decoded with, and what keeps it from that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant.reading.decoding import Parts
from pyarrowquant.reading.scales import ScaleError, check_scales, check_zeros
from pyarrowquant.reading.tensors import Tensor


class ProblemError(ValueError):
    """Why codes cannot be decoded."""


class DamageError(ProblemError):
    """Something is missing, or contradicts something else, without which they could be.

    Attributes
    ----------
    file : str or None
        Which has it; None for that of the codes.
    """

    def __init__(self, problem: str, file: str | None = None) -> None:
        super().__init__(problem)
        self.file = file


def missing(name: str) -> DamageError:
    """Return the error of a tensor that is not there."""
    return DamageError(f"{quoted(name)} is missing")


def misfit(tensor: Tensor, wanted: str) -> DamageError:
    """Return the error of a tensor whose dtype or shape does not fit others.

    Parameters
    ----------
    tensor : Tensor
    wanted : str
        What it must be, and by what.
    """
    return DamageError(
        f"{quoted(tensor.name)} has dtype {tensor.dtype} and shape "
        f"{quoted(list(tensor.shape))}, and must {wanted}"
    )


@dataclass(frozen=True)
class CodedLayer:
    """A layer, and the tensors that its codes are decoded with, by what they are.

    Its scales may be negative if they are `signed`. `own_check` raises ScaleError for what is wrong
    with layers of its kind alone.
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
    own_check: Callable[[Parts], None] | None = None

    @property
    def stored_as(self) -> str:
        """Say what its codes are."""
        codes = self.parts["codes"].tensor
        return f"{quoted(codes.name)} has codes of {self.bits} bits ({self.coding})"

    def check(self) -> None:
        """Raise ScaleError where it has scales that are none."""
        with_zeros = check_scales(self.parts, self.signed)
        if "bias" not in self.parts:  # else codes of 0 are no weights of 0
            for key in with_zeros:
                check_zeros(self.parts, key, self.decode)
        if self.own_check is not None:
            self.own_check(self.parts)


def checked_when_decoded(layer: CodedLayer) -> CodedLayer:
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
