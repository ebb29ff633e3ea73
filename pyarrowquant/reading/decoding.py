"""Codes of other programs to weights: numbers of 8 and 4 bits, by the scales of their blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pyarrowquant._core import levels
from pyarrowquant._core.decoding import decode_levels, unpacked
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant._core.shapes import product
from pyarrowquant.reading.numbers import E2M1_PAIRS, E4M3, Array
from pyarrowquant.reading.stored import Stored

_BLOCK = 128  # usual rows and columns of blocks of FP8
_PIECE = 1 << 20  # weights that are decoded at a time
_CACHED = 1 << 18  # bytes that a processor's cache holds
_PAIRS = 1 << 16  # of bytes
SCALE_DTYPES = frozenset({"F32", "F16", "BF16", "F8_E4M3", "F8_E8M0", "U8"})

Parts = Mapping[str, Stored]
# What becomes NaN or Inf is for who takes the weights to say, with the layer.
of_any_numbers = np.errstate(over="ignore", invalid="ignore")


@dataclass(frozen=True)
class Blocks:
    """Which weights of a stack of matrices each scale is for.

    Attributes
    ----------
    scales : tuple of int
        Matrices, rows and columns of the scales.
    matrix_rows : int
        Rows of a matrix.
    rows, columns : int
        Of a block; the last of a matrix may be smaller.
    """

    scales: tuple[int, int, int]
    matrix_rows: int
    rows: int
    columns: int

    @classmethod
    def of(
        cls, shape: Sequence[int], scales: Sequence[int], usual: tuple[int, int]
    ) -> Blocks | None:
        """Find out which weights each scale is for; None where the shapes do not fit.

        Parameters
        ----------
        shape, scales : sequence of int
            Shapes of the weights and of their scales.
        usual : tuple of int
            Rows and columns of a block, where the number of scales allows several.
        """
        *stack, rows, columns = (1, 1, *shape)[-max(len(shape), 2) :]
        matrices = product(stack)
        if product(scales) == 1:
            return cls((1, 1, 1), matrices * rows, matrices * rows, columns)
        if len(scales) == 1 and scales[0] == matrices > 1:
            scales = (*scales, 1, 1)
        elif len(scales) == 1 and scales[0] == rows:
            scales = (*scales, 1)
        *scale_stack, scale_rows, scale_columns = (1, 1, *scales)[-max(len(scales), 2) :]
        block_rows = _block(rows, scale_rows, usual[0])
        block_columns = _block(columns, scale_columns, usual[1])
        if product(scale_stack) != matrices or not block_rows or not block_columns:
            return None
        return cls((matrices, scale_rows, scale_columns), rows, block_rows, block_columns)

    def of_rows(self, scales: Array, piece: slice) -> Array:
        """Give each of some rows its scales."""
        row = np.arange(piece.start, piece.stop)
        found: Array = scales[row // self.matrix_rows, row % self.matrix_rows // self.rows]
        return found

    def spread(self, scales: Array, piece: slice, columns: int) -> Array:
        """Give each weight of some rows its scale."""
        return np.repeat(self.of_rows(scales, piece), self.columns, axis=1)[:, :columns]


def _block(size: int, count: int, usual: int) -> int | None:
    """Return how many rows, or columns, have a scale in common."""
    if count in (1, size):
        return size if count == 1 else 1
    sizes = (usual, _BLOCK, size // max(count, 1))
    return next((n for n in sizes if n > 0 and -(-size // n) == count), None)


@of_any_numbers
def decode_bytes(
    shape: tuple[int, ...], table: Floats, blocks: Blocks | None, parts: Parts
) -> Floats:
    """Decode codes of a byte each.

    Parameters
    ----------
    table : array of float32
        Values of all bytes.
    blocks : Blocks or None
        None without scales.
    """
    rows, columns = _matrix(shape)
    if blocks is not None:
        scales = parts["scale"].read().reshape(blocks.scales)
    zeros = None
    if blocks is not None and "zero_point" in parts:
        zeros = parts["zero_point"].read().astype(np.float32).reshape(blocks.scales)
    with parts["codes"].open() as stored:
        codes = stored.reshape(-1).view(np.uint8).reshape(rows, columns)
        if table is E4M3 and blocks is not None and zeros is None:
            group_size = -1 if blocks.columns >= columns else blocks.columns
            of_rows = blocks.of_rows(scales, slice(0, rows)).astype(np.float32)
            if codes.size and _is_result(codes, of_rows, group_size):
                return decode_levels(codes, levels.E4M3, of_rows, columns, group_size)

        def decode(piece: slice) -> Floats:
            decoded = _looked_up(table, codes[piece])
            if blocks is not None:
                if zeros is not None:
                    decoded -= blocks.spread(zeros, piece, columns)
                decoded *= blocks.spread(scales, piece, columns)
            return decoded

        return in_pieces(rows, columns, decode)


_LARGEST_SCALE = np.finfo(np.float32).max / 448  # with which all weights are finite


def _is_result(codes: npt.NDArray[np.uint8], scales: Floats, group_size: int) -> bool:
    """Whether codes of E4M3 and their scales could be results of ours, which decode faster."""
    if (group_size > 0 and group_size % 8) or not (np.abs(scales) <= _LARGEST_SCALE).all():
        return False
    # A buffer that stays in the cache: new arrays would take twenty times as long.
    step = max(1, _CACHED // codes.shape[1])
    magnitudes = np.empty((min(step, len(codes)), codes.shape[1]), np.uint8)
    for start in range(0, len(codes), step):
        piece = codes[start : start + step]
        if np.bitwise_and(piece, 0x7F, out=magnitudes[: len(piece)]).max() == 0x7F:
            return False
    return True


def _looked_up(table: Floats, codes: npt.NDArray[np.uint8]) -> Floats:
    """Return what bytes mean, by twos where there are many: that is three times as fast."""
    if codes.size < _PAIRS or codes.size % 2:
        return table[codes]
    numbers = codes.reshape(-1).view(np.uint16)
    decoded: Floats = _by_pairs(table.tobytes()).take(numbers).view(np.float32)
    return decoded.reshape(codes.shape)


@lru_cache
def _by_pairs(table: bytes) -> npt.NDArray[np.uint64]:
    """Make the table of two bytes from that of one: each entry is two float32."""
    two = np.arange(_PAIRS, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    return np.frombuffer(table, np.float32)[two].view(np.uint64).reshape(-1)


@of_any_numbers
def decode_e2m1(shape: tuple[int, ...], group: int, parts: Parts) -> Floats:
    """Decode pairs of E2M1."""
    rows, columns = _matrix(shape)
    scales = parts["scale"].read().reshape(rows, -1)
    if "divisor" in parts:
        scales = scales / _of_rows(parts["divisor"].read(), rows)
    if "factor" in parts:
        scales = scales * _of_rows(parts["factor"].read(), rows)
    with parts["codes"].open() as stored:
        pairs = stored.reshape(-1).view(np.uint8).reshape(rows, columns // 2)

        def decode(piece: slice) -> Floats:
            decoded = E2M1_PAIRS[pairs[piece]].reshape(-1, columns)
            decoded *= np.repeat(scales[piece], group, axis=1)[:, :columns]
            return decoded

        return in_pieces(rows, columns, decode)


@of_any_numbers
def decode_packed(shape: tuple[int, ...], bits: int, group: int, parts: Parts) -> Floats:
    """Decode what compressed-tensors packs; its zero-points lie down the rows."""
    rows, columns = _matrix(shape)
    scales = parts["scale"].read().reshape(rows, -1)
    groups = scales.shape[1]
    zeros = np.full((rows, groups), 2 ** (bits - 1), np.float32)
    if "zero_point" in parts:
        with parts["zero_point"].open() as words:
            zeros = down(np.ascontiguousarray(words.T).view(np.uint8), rows, bits)
    group_of = np.arange(columns) // group
    if "group_of" in parts:
        group_of = parts["group_of"].read()
        if group_of.min() < 0 or group_of.max() >= groups:
            name = parts["group_of"].tensor.name
            place = parts["group_of"].location
            raise ValueError(f"{place}: {quoted(name)} has groups beyond 0 to {groups - 1}")
    width = -(-columns * bits // 8)
    with parts["codes"].open() as stored:
        codes = stored.reshape(rows, -1).view(np.uint8)

        def decode(piece: slice) -> Floats:
            decoded = unpacked(codes[piece, :width], columns, bits)
            decoded = decoded - zeros[piece][:, group_of]
            decoded *= scales[piece][:, group_of]
            return decoded

        return in_pieces(rows, columns, decode)


@of_any_numbers
def decode_affine(shape: tuple[int, ...], bits: int, group: int, parts: Parts) -> Floats:
    """Decode what MLX packs: code * scale + bias."""
    rows, columns = _matrix(shape)
    scales = parts["scale"].read().reshape(rows, -1)
    biases = parts["bias"].read().reshape(rows, -1)
    with parts["codes"].open() as stored:
        codes = stored.reshape(rows, -1).view(np.uint8)

        def decode(piece: slice) -> Floats:
            decoded: Floats = unpacked(codes[piece], columns, bits)
            decoded = decoded * np.repeat(scales[piece], group, axis=1)
            decoded += np.repeat(biases[piece], group, axis=1)
            return decoded

        return in_pieces(rows, columns, decode)


def _of_rows(numbers: Array, rows: int) -> Array:
    """Give each row the number of all, or that of its matrix of a stack."""
    found: Array = np.repeat(numbers.reshape(-1), rows // max(numbers.size, 1))[:, np.newaxis]
    return found


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of all matrices of a stack below one another."""
    return product(shape[:-1]), shape[-1] if shape else 1


def in_pieces(rows: int, columns: int, decode: Callable[[slice], Floats]) -> Floats:
    """Decode some rows at a time, so that what that needs stays small."""
    weights = np.empty((rows, columns), np.float32)
    step = max(1, _PIECE // max(columns, 1))
    for start in range(0, rows, step):
        piece = slice(start, min(start + step, rows))
        weights[piece] = decode(piece)
    return weights


def down(streams: npt.NDArray[np.uint8], count: int, bits: int) -> Floats:
    """Unpack whole numbers that lie down columns, each a little-endian stream of bits.

    Parameters
    ----------
    streams : array of uint8
        A row of bytes for each column.
    count : int
        Of numbers in a column.
    """
    found = np.unpackbits(streams, axis=1, bitorder="little")[:, : count * bits]
    numbers = found.reshape(len(streams), count, bits) @ (1 << np.arange(bits))
    down: Floats = np.ascontiguousarray(numbers.T, dtype=np.float32)
    return down
