"""Arrow's C structs made by hand, with whatever is said in them: what PyArrow would never export.

Buffers have 4 KiB of zeros after their content, so that a number that is a little too large reads
something, as it would in a process with other data around it.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from c_array import CArray

PADDING = bytes(4096)
_SPARE = 4  # pointers that are NULL, behind the last child and buffer
_ALIVE: list[Any] = []  # what PyArrow may still refer to

_GetNext = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_GetLastError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_new_capsule = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)(("PyCapsule_New", ctypes.pythonapi))


class CSchema(ctypes.Structure):
    pass


CSchema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(CSchema))),
    ("dictionary", ctypes.POINTER(CSchema)),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]


class CStream(ctypes.Structure):
    _fields_ = [
        ("get_schema", ctypes.c_void_p),
        ("get_next", ctypes.c_void_p),
        ("get_last_error", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    ]


@dataclass
class Column:
    """An array and its field. Counts that are None are true."""

    format: str | None
    length: int
    buffers: list[bytes | None]
    children: list[Column] = field(default_factory=list)
    dictionary: Column | None = None
    name: str = "item"
    null_count: int = 0
    offset: int = 0
    n_buffers: int | None = None
    n_children: int | None = None
    n_fields: int | None = None
    released: bool = False  # in the array
    field_released: bool = False

    def nodes(self, path: str = "") -> dict[str, Column]:
        """This column and all that it is made of, by their paths."""
        found = {path or ".": self}
        for child in self.children:
            found |= child.nodes(f"{path}/{child.name}")
        if self.dictionary is not None:
            found |= self.dictionary.nodes(f"{path}/dictionary")
        return found


def c_schema(column: Column) -> CSchema:
    made = CSchema()
    made.format = None if column.format is None else column.format.encode()
    made.name = column.name.encode()
    made.flags = 2  # nullable
    made.n_children = len(column.children) if column.n_fields is None else column.n_fields
    made.children = _pointers(CSchema, [c_schema(child) for child in column.children])
    if column.dictionary is not None:
        made.dictionary = ctypes.pointer(c_schema(column.dictionary))
    made.release = None if column.field_released else _release(CSchema)
    _ALIVE.append(made)
    return made


def c_array(column: Column) -> CArray:
    made = CArray()
    made.length, made.null_count, made.offset = column.length, column.null_count, column.offset
    made.n_buffers = len(column.buffers) if column.n_buffers is None else column.n_buffers
    made.n_children = len(column.children) if column.n_children is None else column.n_children
    made.buffers = _buffers(column.buffers)
    made.children = _pointers(CArray, [c_array(child) for child in column.children])
    if column.dictionary is not None:
        made.dictionary = ctypes.pointer(c_array(column.dictionary))
    made.release = None if column.released else _release(CArray)
    _ALIVE.append(made)
    return made


class ArrayExporter:
    """Has nothing but `__arrow_c_array__`."""

    def __init__(self, column: Column) -> None:
        self._column = column

    def __arrow_c_array__(self, _requested: object = None) -> tuple[object, object]:
        return (
            _capsule(c_schema(self._column), b"arrow_schema"),
            _capsule(c_array(self._column), b"arrow_array"),
        )


class StreamExporter:
    """Has nothing but `__arrow_c_stream__`.

    Parameters
    ----------
    schema : Column
    batches : list of Column
    codes : tuple of int
        What get_schema returns, and what get_next returns at the end; 0 is that all is well.
    text : bytes or None
        The last error.
    missing : str or None
        A callback that is NULL.
    """

    def __init__(
        self,
        schema: Column,
        batches: list[Column],
        codes: tuple[int, int] = (0, 0),
        text: bytes | None = b"disk on fire",
        missing: str | None = None,
    ) -> None:
        self._schema, self._batches, self._codes = schema, list(batches), codes
        self._text, self._missing = text, missing

    def __arrow_c_stream__(self, _requested: object = None) -> object:
        left = iter(self._batches)

        def get_schema(_stream: int, out: int) -> int:
            if self._codes[0] == 0:
                ctypes.memmove(out, ctypes.byref(c_schema(self._schema)), ctypes.sizeof(CSchema))
            return self._codes[0]

        def get_next(_stream: int, out: int) -> int:
            batch = next(left, None)
            if batch is None:
                ctypes.memset(out, 0, ctypes.sizeof(CArray))
                return self._codes[1]
            ctypes.memmove(out, ctypes.byref(c_array(batch)), ctypes.sizeof(CArray))
            return 0

        text = None if self._text is None else ctypes.create_string_buffer(self._text)
        address = None if text is None else ctypes.addressof(text)
        _ALIVE.append(text)
        made = CStream()
        made.get_schema = _function(_GetNext, get_schema)
        made.get_next = _function(_GetNext, get_next)
        made.get_last_error = _function(_GetLastError, lambda _stream: address)
        made.release = _release(CStream)
        if self._missing is not None:
            setattr(made, self._missing, None)
        return _capsule(made, b"arrow_array_stream")


def _function(kind: Any, call: Callable[..., Any]) -> int | None:
    function = kind(call)
    _ALIVE.append(function)
    return ctypes.cast(function, ctypes.c_void_p).value


def _release(kind: type[ctypes.Structure]) -> int | None:
    """Return a callback in C, since Python cannot run one while there is an exception."""
    function = getattr(_releases(), f"release_{kind.__name__}")
    return ctypes.cast(function, ctypes.c_void_p).value


@cache
def _releases() -> ctypes.CDLL:
    source = "".join(
        f"void release_{kind.__name__}(char *made)"
        f"{{ *(void **)(made + {kind.release.offset}) = 0; }}\n"
        for kind in (CSchema, CArray, CStream)
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "release.c").write_text(source)
        command = ["cc", "-shared", "-fPIC", "-o", "release.so", "release.c"]
        subprocess.run(command, cwd=folder, check=True)
        return ctypes.CDLL(str(Path(folder) / "release.so"))


def _capsule(struct: ctypes.Structure, name: bytes) -> object:
    _ALIVE.extend((struct, name))
    return _new_capsule(ctypes.addressof(struct), name, None)


def _buffers(contents: list[bytes | None]) -> Any:
    addresses = []
    for content in contents:
        if content is None:
            addresses.append(None)
            continue
        memory = ctypes.create_string_buffer(content + PADDING)
        _ALIVE.append(memory)
        addresses.append(ctypes.addressof(memory))
    made = (ctypes.c_void_p * (len(addresses) + _SPARE))(*addresses)
    _ALIVE.append(made)
    return ctypes.cast(made, ctypes.POINTER(ctypes.c_void_p))


def _pointers(kind: Any, structs: list[Any]) -> Any:
    made = (ctypes.POINTER(kind) * (len(structs) + _SPARE))(*map(ctypes.pointer, structs))
    _ALIVE.append(made)
    return ctypes.cast(made, ctypes.POINTER(ctypes.POINTER(kind)))
