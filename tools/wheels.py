"""Build a wheel for each platform on any of them, with zig as C compiler and linker.

usage: python tools/wheels.py FOLDER [PLATFORM ...]
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import ziglang

ROOT = Path(__file__).parents[1].resolve()
STUBS = ROOT / "tools" / "macos"  # of libraries of macOS that zig does not bring


@dataclass(frozen=True)
class Platform:
    """What has a wheel: its name in Go, zig's for what to link with, and the one in wheels.

    The oldest macOS is that of Go.
    """

    go: str
    zig: str
    tag: str

    def compiler(self) -> str:
        """Return the command of the C compiler, as Go splits it."""
        zig = Path(ziglang.__file__).parent / ("zig.exe" if os.name == "nt" else "zig")
        command = f"'{zig}' cc -target {self.zig}"
        return f"{command} '-L{STUBS}'" if self.go.startswith("darwin/") else command


PLATFORMS = (
    Platform("linux/amd64", "x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64"),
    Platform("linux/arm64", "aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64"),
    Platform("darwin/amd64", "x86_64-macos.13.0", "macosx_13_0_x86_64"),
    Platform("darwin/arm64", "aarch64-macos.13.0", "macosx_13_0_arm64"),
    Platform("windows/amd64", "x86_64-windows-gnu", "win_amd64"),
)


def build_sdist(folder: Path) -> Path:
    """Build the sdist, which has no files of builds for other platforms in it."""
    command = [sys.executable, "-m", "build", "--sdist", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (sdist,) = folder.glob("pyarrowquant-*.tar.gz")
    return sdist


def build_wheel(sdist: Path, platform: Platform) -> None:
    """Build a wheel beside its sdist."""
    system, processor = platform.go.split("/")
    environment = {**os.environ, "GOOS": system, "GOARCH": processor, "CC": platform.compiler()}
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += [f"--config-settings=--build-option=--plat-name={platform.tag}"]
    command += ["--wheel-dir", str(sdist.parent), str(sdist)]
    subprocess.run(command, check=True, env=environment)


def main() -> None:
    folder, *names = sys.argv[1:]
    known = {platform.go: platform for platform in PLATFORMS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"'{unknown[0]}' is none of {', '.join(known)}")
    sdist = build_sdist(Path(folder))
    for name in names or known:
        build_wheel(sdist, known[name])


if __name__ == "__main__":
    main()
