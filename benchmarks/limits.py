"""The limits of this machine's memory, measured by loops in C."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("limits.c")


def build() -> ctypes.CDLL:
    """Compile limits.c; AVX2 is needed, as for the vector kernels."""
    folder = tempfile.mkdtemp(prefix="limits-")
    library = Path(folder) / "limits.so"
    command = ["cc", "-O3", "-mavx2", "-shared", "-fPIC", "-pthread"]
    subprocess.run([*command, "-o", str(library), str(SOURCE)], check=True)
    return ctypes.CDLL(str(library))


def huge(size: int) -> np.ndarray:
    """Memory in huge pages, as far as the system has them, all touched."""
    import mmap

    mapped = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapped.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(mapped, np.uint8)
    array[:] = 1
    return array


class Limits:
    """Loops over memory of a size.

    Parameters
    ----------
    size : int
        Bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._library = build()
        self._data, self._packed = huge(size), huge(size // 512 * 72 + 512)

    def loop(self, name: str, threads: int) -> Callable[[], object]:
        """Read all bytes, read them and write 72 for each 512 ("read_write"), or write them."""
        memory = [self._data, self._packed] if name == "read_write" else [self._data]
        addresses = [ctypes.c_void_p(each.ctypes.data) for each in memory]
        work = getattr(self._library, f"limit_{name}")
        return partial(work, *addresses, ctypes.c_size_t(self.size), threads)
