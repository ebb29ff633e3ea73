"""Tensors of torch, MLX, JAX and others as numpy arrays over their memory, by DLPack."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_READABLE = (1, 3, 11, 13)  # by a processor: its own memory, pinned and managed memory
_METAL = 8  # whose capsules have no addresses, but whose arrays are buffers
_FORMATS = {"f": "float32", "e": "float16"}  # of buffers; others are called what they are
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}


class _Tensor(ctypes.Structure):
    """C's struct DLTensor, with which a capsule of the name "dltensor" begins.

    In one of the name "dltensor_versioned" it follows the version, two pointers and flags.
    """

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_HEADER_BYTES = 32  # before the tensor in a capsule with a version

# Prototypes of our own, since attributes of ctypes.pythonapi are everybody's.
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


_capsule_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ("PyCapsule_GetName", ctypes.pythonapi)
)


class _Memory:
    """The memory of a tensor, as numpy reads it; the capsule lets go of it at its own end."""

    def __init__(self, capsule: object, interface: dict[str, Any]) -> None:
        self.capsule = capsule
        self.__array_interface__ = interface


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor; arrays of numpy and of Arrow speak DLPack too."""
    others = isinstance(value, np.ndarray) or hasattr(value, "__arrow_c_array__")
    return hasattr(value, "__dlpack__") and not others


def view(tensor: Any) -> tuple[str, npt.NDArray[Any]]:
    """View a tensor's memory; also return the name of its type.

    The array has unsigned integers of the size of the elements, since numpy has no bfloat16.

    Raises
    ------
    ValueError
        The tensor lies on another device, or does not give its memory.
    """
    try:
        device = int(tensor.__dlpack_device__()[0])
    except Exception as error:
        raise ValueError(f"its device is not known: {error}") from error
    if device == _METAL:
        return _buffer(tensor)
    if device not in _READABLE:
        raise ValueError("it lies on another device. Use its cpu() first")
    try:
        capsule = _capsule_of(tensor)
        name = _capsule_name(capsule)
        begin = _HEADER_BYTES if name == b"dltensor_versioned" else 0
        found = _Tensor.from_address(_capsule_pointer(capsule, name) + begin)
    except Exception as error:
        raise ValueError(f"it does not give its memory: {error}. Use its detach()") from error
    dtype = "bool" if found.code == 6 else f"{_KINDS.get(found.code, 'type ')}{found.bits}"
    if found.lanes != 1 or found.bits not in (8, 16, 32, 64):
        return f"{dtype} of {found.lanes} lanes", np.empty(0, np.uint8)
    shape = tuple(found.shape[: found.ndim])
    size = found.bits // 8
    if math.prod(shape) == 0:
        return dtype, np.empty(shape, f"<u{size}")
    interface: dict[str, Any] = {
        "version": 3,
        "shape": shape,
        "typestr": f"<u{size}",
        "data": (found.data + found.byte_offset, True),
        "strides": tuple(size * n for n in found.strides[: found.ndim]) if found.strides else None,
    }
    return dtype, np.asarray(_Memory(capsule, interface))


def _capsule_of(tensor: Any) -> object:
    """Ask for a capsule with a version, which libraries from before DLPack 1 do not know."""
    try:
        return tensor.__dlpack__(max_version=(1, 0))
    except TypeError:
        return tensor.__dlpack__()


def _buffer(tensor: Any) -> tuple[str, npt.NDArray[Any]]:
    """View the memory of what has the buffer protocol."""
    try:
        shown = memoryview(tensor)
        values = np.frombuffer(pa.py_buffer(tensor), f"<u{shown.itemsize}")
    except (TypeError, ValueError, BufferError) as error:
        raise ValueError(f"it does not give its memory: {error}") from error
    return _FORMATS.get(shown.format, shown.format), values.reshape(shown.shape)
