"""The wheels of `make wheels`: what they say, have and need, and that libraries give the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pefile
import pytest
import ziglang
from child import ROOT
from elftools.elf.elffile import ELFFile
from macholib import mach_o
from macholib.MachO import MachO
from macholib.SymbolTable import SymbolTable

DIST = ROOT / "dist"
WINE = Path("/usr/lib/wine")  # of Debian and Ubuntu
WHEELS = {
    "manylinux_2_17_x86_64": ".so",
    "manylinux_2_17_aarch64": ".so",
    "macosx_13_0_x86_64": ".dylib",
    "macosx_13_0_arm64": ".dylib",
    "win_amd64": ".dll",
}
MANYLINUX = [tag for tag in WHEELS if tag.startswith("manylinux")]
X86_64, ARM64 = 0x01000007, 0x0100000C  # processors in Mach-O
MACOS = [tag for tag in WHEELS if tag.startswith("macosx")]
SYMBOLS = set(re.findall(r"paq_\w+", (ROOT / "cshim" / "symbols.map").read_text(encoding="utf-8")))
# Go exports from a DLL all that C may call, also what arrow-go gives to C. Other libraries do not
# see these names, as on macOS, where zig's linker has no list of exports.
OF_ARROW = re.compile(
    r"async(Producer|Stream|Task)[A-Za-z]+|releaseExported(Array|Schema)|stream(Get|Release)[A-Za-z]*"
)
OPTIONS = {
    "threads": 2,
    "sort": True,
    "type_names": {
        "layer_name": "string",
        "weights": "list<item: float>",
        "shape": "list<item: int64>",
    },
    "group_size": 128,
    "zero_point": "integer",
    "scale_dtype": "float32",
    "encoding": "int",
    "version": "0",
}


def wheel_of(tag: str) -> Path:
    (found,) = DIST.glob(f"pyarrowquant-*-py3-none-{tag}.whl")
    return found


def library_of(tag: str, folder: Path) -> Path:
    with zipfile.ZipFile(wheel_of(tag)) as archive:
        return Path(archive.extract(f"pyarrowquant/_pyarrowquant{WHEELS[tag]}", folder))


def test_every_platform_has_a_wheel() -> None:
    found = {path.stem.rsplit("-", 1)[1] for path in DIST.glob("*.whl")}
    assert found == WHEELS.keys()


@pytest.mark.parametrize("tag", WHEELS)
class TestWheel:
    def test_says_its_tag(self, tag: str) -> None:
        with zipfile.ZipFile(wheel_of(tag)) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/WHEEL")]
            lines = archive.read(name).decode().splitlines()
        assert f"Tag: py3-none-{tag}" in lines
        assert "Root-Is-Purelib: false" in lines

    def test_has_the_package_and_one_library(self, tag: str) -> None:
        with zipfile.ZipFile(wheel_of(tag)) as archive:
            names = [name for name in archive.namelist() if ".dist-info/" not in name]
        library = f"pyarrowquant/_pyarrowquant{WHEELS[tag]}"
        suffixes = (".py", ".html", ".css", ".js", ".txt", ".typed")
        files = [path for suffix in suffixes for path in ROOT.glob(f"pyarrowquant/**/*{suffix}")]
        assert sorted(names) == sorted([library, *(str(p.relative_to(ROOT)) for p in files)])

    def test_is_small(self, tag: str, tmp_path: Path) -> None:
        assert wheel_of(tag).stat().st_size < 8_000_000
        assert library_of(tag, tmp_path).stat().st_size < 8_000_000


@pytest.mark.parametrize("tag", MANYLINUX)
def test_linux(tag: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "auditwheel", "show", str(wheel_of(tag))]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (found,) = re.findall(r'"manylinux_2_(\d+)_\w+"', "".join(shown.split()))
    assert int(found) <= 17
    with library_of(tag, tmp_path).open("rb") as file:
        library = ELFFile(file)
        symbols = library.get_section_by_name(".dynsym").iter_symbols()
        assert {s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF" and s.name} == SYMBOLS
        sections = [section.name for section in library.iter_sections()]
        assert not [name for name in sections if name == ".symtab" or name.startswith(".debug")]
        tags = library.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")
        assert {each.needed for each in tags} <= {"libc.so.6", "libpthread.so.0"}


@pytest.mark.parametrize("tag", MACOS)
def test_macos(tag: str, tmp_path: Path) -> None:
    library = MachO(str(library_of(tag, tmp_path)))
    (header,) = library.headers
    processors = {"macosx_13_0_x86_64": X86_64, "macosx_13_0_arm64": ARM64}
    assert header.header.cputype == processors[tag]
    commands = {load.cmd: command for load, command, _ in header.commands}
    assert commands[mach_o.LC_BUILD_VERSION].minos == 13 << 16
    assert mach_o.LC_CODE_SIGNATURE in commands or tag != "macosx_13_0_arm64"  # runs only signed
    needed = {name for _, _, name in header.walkRelocatables()}
    assert needed == {"/usr/lib/libSystem.B.dylib", "/usr/lib/libresolv.9.dylib"}
    exported = {name.decode() for _, name in SymbolTable(library, header).extdefsyms}
    assert exported >= {f"_{name}" for name in SYMBOLS}


def test_windows(tmp_path: Path) -> None:
    with pefile.PE(str(library_of("win_amd64", tmp_path))) as library:
        assert library.FILE_HEADER.Machine == pefile.MACHINE_TYPE["IMAGE_FILE_MACHINE_AMD64"]
        needed = {each.dll.decode().lower() for each in library.DIRECTORY_ENTRY_IMPORT}
        exported = {each.name.decode() for each in library.DIRECTORY_ENTRY_EXPORT.symbols}
    assert {name for name in needed if not name.startswith("api-ms-win-crt-")} == {"kernel32.dll"}
    assert exported >= SYMBOLS
    assert all(OF_ARROW.fullmatch(name) for name in exported - SYMBOLS)


def compiled(folder: Path, target: str, output: str, source: str, *more: str) -> Path:
    zig = Path(ziglang.__file__).parent / "zig"
    program = folder / output
    file = ROOT / "tests" / "wheels" / source
    command = [zig, "cc", "-target", target, "-o", program, file, *more]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command that calls the library for Linux."""
    folder = tmp_path_factory.mktemp("linux")
    program = compiled(folder, "x86_64-linux-gnu.2.17", "call", "call.c", "-ldl")
    return [str(program), str(library_of("manylinux_2_17_x86_64", folder))]


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A command that calls the DLL, in a Wine that has what Go needs."""
    folder = tmp_path_factory.mktemp("windows")
    os.environ |= {"WINEPREFIX": str(folder / "wine"), "WINEDEBUG": "-all"}
    # Services of Wine go on, and would keep a pipe open; as its server would with each program.
    nothing = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    (folder / "wine").mkdir()
    subprocess.run([WINE / "wineserver64", "--persistent"], check=True, **nothing)
    try:
        subprocess.run([WINE / "wine64", "wineboot"], check=False, **nothing)
        compiled(
            folder / "wine" / "drive_c" / "windows" / "system32",
            "x86_64-windows-gnu",
            "bcryptprimitives.dll",
            "bcryptprimitives.c",
            "-shared",
            "-ladvapi32",
        )
        program = compiled(folder, "x86_64-windows-gnu", "call.exe", "call.c")
        yield [str(WINE / "wine64"), str(program), str(library_of("win_amd64", folder))]
    finally:
        subprocess.run([WINE / "wineserver64", "--kill"], check=False, **nothing)


def printed(command: list[str]) -> list[str]:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("kernel", ["", "scalar"])
@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize("bit_width", [3, 4])
def test_the_dll_gives_what_linux_gives(
    linux: list[str], windows: list[str], kernel: str, method: str, bit_width: int
) -> None:
    options = json.dumps(OPTIONS | {"kernel": kernel, "method": method, "bit_width": bit_width})
    wanted = printed([*linux, options])
    assert "quantized_data" in wanted
    assert wanted[-2:] == ["alive", "0"]
    assert printed([*windows, options]) == wanted


def test_the_wheel_of_this_platform_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    wheel = wheel_of("manylinux_2_17_x86_64")
    subprocess.run([*command, str(tmp_path), str(wheel)], check=True)
    program = (
        "import pyarrow as pa, pyarrowquant as q; print(q.__file__);"
        "t = pa.table({'layer_name': ['a'], 'weights': pa.array([[1.0, -1.0] * 64])});"
        "print(q.quantize_batch_arrow(t)['shape'][0].as_py())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    file, shape = done.stdout.splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert shape == "[128]"
