"""What each encoding fixes, as its publishers say it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Fixed(NamedTuple):
    """Settings, the columns of a super-block, and the bytes that it takes with a scale a group."""

    bit_width: int
    group_size: int
    columns: int
    block_bytes: int
    levels: int = 0  # 0: codes stand for themselves
    supers: str = ""  # "s", "sm": super-scales, and super-minimums; "l": one of the layer


FIXED = {
    "q2_k": Fixed(2, 16, 256, 84, supers="sm"),
    "q3_k": Fixed(3, 16, 256, 110, supers="s"),
    "q4_k": Fixed(4, 32, 256, 144, supers="sm"),
    "q5_k": Fixed(5, 32, 256, 176, supers="sm"),
    "q6_k": Fixed(6, 16, 256, 210, supers="s"),
    "iq4_nl": Fixed(4, 32, 32, 18, levels=16),
    "iq4_xs": Fixed(4, 32, 256, 136, levels=16, supers="s"),
    "nf4": Fixed(4, 64, 64, 36, levels=16),
    "mxfp4": Fixed(4, 32, 32, 17, levels=16),
    "mxfp8": Fixed(8, 32, 32, 33, levels=256),
    "nvfp4": Fixed(4, 16, 16, 9, levels=16, supers="l"),
    "fp8": Fixed(8, -1, 64, 68, levels=256),
}
OTHERS: dict[str, list[Any]] = {
    "bit_width": [2, 3, 4, 5, 6, 8],
    "group_size": [-1, 8, 16, 32, 64, 128],
}
