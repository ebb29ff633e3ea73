"""Tables of two layers in all layouts, and ways in which a producer gets them wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import numpy as np
from c_arrays import PADDING, Column

FAR = 2**20
IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
NAMES = [b"first", b"a name of more than 12 bytes"]


def ends(sizes: list[int], width: str) -> bytes:
    return np.cumsum([0, *sizes]).astype(width).tobytes()


def spans(format_: str, values: list[bytes], name: str) -> Column:
    """Texts or binary values: u, U, z, Z, or views vu, vz."""
    data = b"".join(values)
    if not format_.startswith("v"):
        offsets = ends([len(value) for value in values], "<i4" if format_ in "uz" else "<i8")
        return Column(format_, len(values), [None, offsets, data], name=name)
    views, start = b"", 0
    for value in values:
        short = len(value) <= 12
        views += struct.pack("<i", len(value))
        views += value.ljust(12, b"\0") if short else value[:4] + struct.pack("<ii", 0, start)
        start += len(value)
    sizes = struct.pack("<q", len(data))
    return Column(format_, len(values), [None, views, data, sizes], name=name)


def lists(format_: str, element: str, name: str, count: int = 8, value: float = 1) -> Column:
    """Two lists of so many elements each."""
    types = {"f": "<f4", "e": "<f2", "g": "<f8", "l": "<i8", "i": "<i4"}
    values = np.full(2 * count, value) * (np.arange(2 * count) + 1 if value == 1 else 1)
    child = Column(element, 2 * count, [None, values.astype(types[element]).tobytes()])
    width = "<i8" if "L" in format_ else "<i4"
    buffers: list[bytes | None] = [None]
    if format_ in ("+l", "+L"):
        buffers += [ends([count, count], width)]
    elif format_ in ("+vl", "+vL"):
        numbers = np.array([0, count, count, count], width)
        buffers += [numbers[:2].tobytes(), numbers[2:].tobytes()]
    return Column(f"+w:{count}" if format_ == "+w" else format_, 2, buffers, [child], name=name)


def dictionary(value: str) -> Column:
    values = spans(value, NAMES, "dictionary")
    return Column("c", 2, [None, b"\0\1"], dictionary=values, name="layer_name")


def table(*columns: Column) -> Column:
    return Column("+s", 2, [None], list(columns), name="")


LISTS = ("+l", "+L", "+vl", "+vL", "+w")


def sound() -> dict[str, Column]:
    """Tables of each layout that a column may have."""
    name, weights = spans("u", NAMES, "layer_name"), lists("+l", "f", "weights")
    found = {
        f"name {kind}": table(spans(kind, NAMES, "layer_name"), weights) for kind in ("U", "vu")
    }
    found |= {f"name dictionary {kind}": table(dictionary(kind), weights) for kind in ("u", "vu")}
    for kind in LISTS:
        found[f"weights {kind} f"] = table(name, lists(kind, "f", "weights"))
        found[f"importance {kind}"] = table(name, weights, lists(kind, "f", "importance"))
    for element in "eg":
        found[f"weights +l {element}"] = table(name, lists("+l", element, "weights"))
    for kind in ("+l", "+L", "+w"):
        found[f"shape {kind}"] = table(name, weights, lists(kind, "l", "shape", 1, 8))
    found["shape +l i"] = table(name, weights, lists("+l", "i", "shape", 1, 8))
    raw = [np.arange(8, dtype="<f4").tobytes()] * 2
    dtype = spans("u", [b"F32", b"F32"], "dtype")
    for kind in ("z", "Z", "vz"):
        found[f"weights {kind}"] = table(name, spans(kind, raw, "weights"), dtype)
    return deepcopy(found)


def results() -> Column:
    """A result of two layers of 32 weights each, in 4 bits and one group."""
    sizes = Column("l", 4, [None, np.array([1, 32] * 2, "<i8").tobytes()])
    return table(
        spans("u", NAMES, "layer_name"),
        spans("z", [b"\x10\x32\x54\x76" * 4] * 2, "quantized_data"),
        lists("+l", "f", "scales", 1),
        lists("+l", "f", "zero_points", 1, 8),
        Column("+l", 2, [None, ends([2, 2], "<i4")], [sizes], name="shape"),
        Column("C", 2, [None, b"\4\4"], name="bit_width"),
        Column("i", 2, [None, struct.pack("<ii", 32, 32)], name="group_size"),
    )


def encoded() -> Column:
    """A result of two layers of encoding iq4_nl, which has levels and no super-scales."""
    found = results()
    zero_points = found.children[3]
    zero_points.children[0].buffers[1] = bytes(8)
    levels = np.array(IQ4 * 2, "<f4").tobytes()
    found.children += [
        spans("u", [b"iq4_nl"] * 2, "encoding"),
        Column(
            "+l", 2, [None, ends([16, 16], "<i4")], [Column("f", 32, [None, levels])], name="levels"
        ),
        lists("+l", "f", "super_scales", 0),
        lists("+l", "f", "super_minimums", 0),
    ]
    return found


def wrong_numbers(column: Column) -> Iterator[tuple[str, Callable[[Column], None]]]:
    """Ways to get one node of a table wrong, but for those that PyArrow itself dies of.

    These are what the docstring of `quantize_batch_arrow` names: pointers that are NULL or not
    there, and buffers shorter than what is said of them.
    """

    def setting(attribute: str, value: object) -> tuple[str, Callable[[Column], None]]:
        return f"{attribute} {value}", lambda node: setattr(node, attribute, value)

    for length in (0, column.length - 1, column.length + 3, -1, -(2**63)):
        yield setting("length", length)
    for offset in (1, -1, -(2**63)):
        yield setting("offset", offset)
    for count in (1, 5, -1, -2, 2**62):
        yield setting("null_count", count)
    is_view = (column.format or "").startswith("v")
    for count in (0, -1) if is_view else (0, -1, len(column.buffers) + 1):
        yield setting("n_buffers", count)
    for count in (0, -1, len(column.children) + 1):
        yield setting("n_children", count)
    yield setting("n_fields", 0)
    for format_ in ("", "?", "i", "+s", "+w:-1", "+w:0", "+w:99", "n", "ts"):
        yield setting("format", format_)
    yield setting("released", True)
    yield setting("field_released", True)
    if column.dictionary is not None:
        yield setting("dictionary", None)
    for i, content in enumerate(column.buffers):
        if not (is_view and i == 3):  # the sizes of data, which PyArrow reads
            yield f"buffer {i} NULL", partial(_set_buffer, i, None)
        for what, changed in wrong_contents(content or b"") if i else ():
            if not (i == 1 and _data_is_too_short(column, changed)):
                yield f"buffer {i} {what}", partial(_set_buffer, i, changed)


def _set_buffer(i: int, content: bytes | None, node: Column) -> None:
    node.buffers[i] = content


def _data_is_too_short(column: Column, offsets: bytes) -> bool:
    """Whether texts or binary values end behind their data: its size is only what they say."""
    width = {"u": "<i4", "z": "<i4", "U": "<i8", "Z": "<i8"}.get(column.format or "")
    return width is not None and int(np.frombuffer(offsets, width)[-1]) > len(PADDING)


def wrong_contents(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Numbers of 32 and of 64 bits, one of which is changed: offsets, sizes, views, indices."""
    for width in (4, 8):
        for at in range(0, min(len(content), 32) - width + 1, width):
            for number in (-1, 3, FAR, 2**31 - 1, -(2**31)):
                raw = number.to_bytes(width, "little", signed=True)
                changed = content[:at] + raw + content[at + width :]
                yield f"int{8 * width} at {at} is {number}", changed
