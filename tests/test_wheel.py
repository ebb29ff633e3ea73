"""The sdist, and the wheel that is built from it in isolation."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from child import ROOT

DATA = (".html", ".css", ".js", ".txt")  # pages of reports, and a text


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build as a packager does: first the sdist, and the wheel out of it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def library_of(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if Path(n).name.startswith("_pyarrowquant.")]
        return Path(archive.extract(name, folder))


def test_wheel_serves_every_python(wheel: Path) -> None:
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")


def test_wheel_holds_no_sources_but_python(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        suffixes = {Path(name).suffix for name in archive.namelist()}
    assert suffixes.isdisjoint({".go", ".c", ".h", ".s", ".mod", ".sum", ".map"})
    assert ".typed" in suffixes


def test_wheel_holds_all_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.endswith((".py", *DATA))}
        names = {name for name in names if ".dist-info/" not in name}
    files = [path for suffix in (".py", *DATA) for path in ROOT.glob(f"pyarrowquant/**/*{suffix}")]
    assert names == {str(path.relative_to(ROOT)) for path in files}


def test_library_is_small(wheel: Path, tmp_path: Path) -> None:
    assert library_of(wheel, tmp_path).stat().st_size < 8_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="ELF symbols and manylinux are Linux matters")
def test_library_exports_only_our_symbols(wheel: Path, tmp_path: Path) -> None:
    from elftools.elf.elffile import ELFFile

    with library_of(wheel, tmp_path).open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
        exported = {s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF" and s.name}
    assert exported
    assert all(name.startswith("paq_") for name in exported), exported


@pytest.mark.skipif(sys.platform != "linux", reason="ELF symbols and manylinux are Linux matters")
def test_wheel_fits_a_manylinux_tag(wheel: Path) -> None:
    command = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert '"manylinux_2_' in " ".join(shown.split())


def test_sdist_has_all_that_tests_and_builds_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {str(Path(name).relative_to(Path(name).parts[0])) for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert {name for name in tracked if not name.startswith((".ci/", ".gitignore"))} <= names
