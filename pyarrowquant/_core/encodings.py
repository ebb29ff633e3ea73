"""What each encoding fixes, and the bits that it stores. Go has the same; tests compare them."""

from __future__ import annotations

from dataclasses import dataclass

from pyarrowquant._core.group_sizes import BLOCK, SHARED, GroupSize, blocks_in, groups_in_row

_ORDER = ("bit_width", "group_size", "zero_point", "scale_dtype")
SUPER_SIZE = 256  # columns that share super-scales


@dataclass(frozen=True)
class Encoding:
    """What an encoding other than "int" fixes.

    Attributes
    ----------
    bit_width : int
    group_size : int
    zero_point : {"integer", "float", "symmetric"}
        The kind of its zero-points.
    scale_dtype : str
        What its scales are exact in.
    free : frozenset of str
        Settings that may be said all the same; the others are fixed.
    factor_bits : int or None
        Of a group's scale, and minimum if it has one, as small integers or floats; None for a
        scale of `scale_dtype`.
    factors : (int, int) or None
        The least and the most of the small integers that scales are a super-scale's products
        with; None where groups have no super-scale of their row.
    super_bits : int
        Of the super-scale, and super-minimum if there is one, of 256 columns.
    layer_bits : int
        Of a scale of the whole layer.
    shares : bool
        Whether rows may share scales, as `group_size` says then.
    wider : str or None
        The next wider encoding of the family.
    """

    bit_width: int
    group_size: int
    zero_point: str = "integer"
    scale_dtype: str = "float32"
    free: frozenset[str] = frozenset()
    factor_bits: int | None = None
    factors: tuple[int, int] | None = None
    super_bits: int = 0
    layer_bits: int = 0
    shares: bool = False
    wider: str | None = None

    @property
    def brings(self) -> dict[str, int | str]:
        """The settings that it has where nobody says them; a free scale_dtype stays as it is."""
        return {**self.fixed, "group_size": self.group_size}

    @property
    def fixed(self) -> dict[str, int | str]:
        """The settings that cannot be otherwise."""
        return {name: getattr(self, name) for name in _ORDER if name not in self.free}

    @property
    def has_levels(self) -> bool:
        """Whether codes do not stand for themselves; zero-points are then all 0."""
        return self.zero_point == "integer"

    @property
    def has_minimums(self) -> bool:
        """Whether zero-points are a minimum divided by the scale, else all the same."""
        return self.zero_point == "float"

    def super_count(self, rows: int, columns: int, group_size: GroupSize) -> int:
        """Return how many super-scales a layer has, or scales that rows share."""
        if group_size in SHARED:
            return _shared_count(rows, columns, group_size)
        if self.factors is None:
            return 1 if self.layer_bits else 0
        return rows * -(-columns // SUPER_SIZE)

    def super_of(self, columns: int) -> list[int]:
        """Return the super-scale of a row that each of its groups belongs to."""
        return [first // SUPER_SIZE for first in range(0, columns, self.group_size)]

    def table_bits(self, rows: int, columns: int, group_size: GroupSize) -> int:
        """Return the bits of a layer in tables, which have all but codes as float32."""
        codes = -(-columns * self.bit_width // 8) * 8
        groups = groups_in_row(group_size, columns)
        per_group = 1 if self.has_levels else 2
        supers = self.super_count(rows, columns, group_size) * (2 if self.has_minimums else 1)
        levels = 2**self.bit_width if self.has_levels else 0
        return rows * (codes + 32 * per_group * groups) + 32 * (supers + levels)

    def stored_bits(self, rows: int, columns: int, group_size: GroupSize, scale_bits: int) -> int:
        """Return the bits of a layer; a scale that is no factor has `scale_bits`.

        Rows of codes are padded to bytes.
        """
        codes = -(-columns * self.bit_width // 8) * 8
        if group_size in SHARED:
            return rows * codes + _shared_count(rows, columns, group_size) * scale_bits
        groups = groups_in_row(group_size, columns)
        factors = groups * (scale_bits if self.factor_bits is None else self.factor_bits)
        supers = -(-columns // SUPER_SIZE) * self.super_bits
        return rows * (codes + factors + supers) + self.layer_bits


def _shared_count(rows: int, columns: int, group_size: GroupSize) -> int:
    return blocks_in(rows) * blocks_in(columns) if group_size == BLOCK else 1


_U4, _U6, _I6, _I8 = (1, 15), (1, 63), (-32, 31), (-128, 127)

# K-quants and IQ4 are llama.cpp's, NF4 is QLoRA's, MX and E4M3 are OCP's.
ENCODINGS = {
    "q2_k": Encoding(2, 16, "float", factor_bits=4 + 4, factors=_U4, super_bits=32, wider="q3_k"),
    "q3_k": Encoding(3, 16, "symmetric", factor_bits=6, factors=_I6, super_bits=16, wider="q4_k"),
    "q4_k": Encoding(4, 32, "float", factor_bits=6 + 6, factors=_U6, super_bits=32, wider="q5_k"),
    "q5_k": Encoding(5, 32, "float", factor_bits=6 + 6, factors=_U6, super_bits=32, wider="q6_k"),
    "q6_k": Encoding(6, 16, "symmetric", factor_bits=8, factors=_I8, super_bits=16),
    "iq4_nl": Encoding(4, 32, scale_dtype="float16", wider="q5_k"),
    "iq4_xs": Encoding(4, 32, factor_bits=6, factors=_I6, super_bits=16, wider="iq4_nl"),
    "nf4": Encoding(4, 64, wider="fp8"),
    "mxfp4": Encoding(4, 32, factor_bits=8, wider="mxfp8"),
    "mxfp8": Encoding(8, 32, factor_bits=8),
    "nvfp4": Encoding(4, 16, factor_bits=8, layer_bits=32, wider="fp8"),
    "fp8": Encoding(8, -1, free=frozenset({"group_size", "scale_dtype"}), shares=True),
}
INTEGER = "int"  # evenly spaced codes, with a scale and a zero-point a group
ENCODING_NAMES = (INTEGER, *ENCODINGS)
