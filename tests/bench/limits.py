"""The limits of this machine's memory, measured by loops in C."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from timing import Times, measure

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


def measure_limits(data: np.ndarray, threads: int, repetitions: int) -> dict[str, Times]:
    """Seconds to read `data`, to read it and write 72 bytes each 512, and to write as much."""
    library = build()
    address = ctypes.c_void_p(data.ctypes.data)
    size = ctypes.c_size_t(data.nbytes)
    packed = huge(data.nbytes // 512 * 72 + 512)
    out = huge(data.nbytes)
    to_packed, to_out = ctypes.c_void_p(packed.ctypes.data), ctypes.c_void_p(out.ctypes.data)
    return {
        "read": measure(lambda: library.limit_read(address, size, threads), repetitions),
        "read_write": measure(
            lambda: library.limit_read_write(address, to_packed, size, threads), repetitions
        ),
        "write": measure(lambda: library.limit_write(to_out, size, threads), repetitions),
    }
