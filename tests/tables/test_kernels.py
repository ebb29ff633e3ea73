"""The kernel of the processor is in the library, however that was built."""

from __future__ import annotations

import platform

from methods import kernels

ARM64 = ("aarch64", "arm64")


def test_arm64_has_neon() -> None:
    assert ("neon" in kernels()) == (platform.machine() in ARM64)
