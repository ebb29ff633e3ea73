"""What the workflow of a release runs on every system can be imported on every system."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from child import ROOT

TESTS = ROOT / "tests"
OF_POSIX = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}


def commands_of(job: str) -> list[str]:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    return [step["run"] for step in yaml.safe_load(text)["jobs"][job]["steps"] if "run" in step]


def of_some_systems() -> set[str]:
    """Packages of the group that the tests install which have a marker."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (group,) = re.findall(r"^test = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    return set(re.findall(r'^ *"(\w+).*;', group, re.MULTILINE))


def files_of_tests() -> list[Path]:
    (command,) = [each for each in commands_of("test") if "-m pytest" in each]
    found = []
    for name in re.findall(r"tests/\S+", command):
        path = ROOT / name
        found += sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
    return found


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports when it is imported itself."""
    for each in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(each, ast.Import):
            yield from (name.name for name in each.names)
        elif isinstance(each, ast.ImportFrom) and each.module:
            yield each.module


def with_helpers(path: Path) -> set[Path]:
    """A file of tests, the fixtures above it, and the modules of tests that these import."""
    above = [folder / "conftest.py" for folder in path.parents if folder.is_relative_to(TESTS)]
    found: set[Path] = set()
    left = [path, *(each for each in above if each.exists())]
    while left:
        found.add(file := left.pop())
        helpers = {TESTS / (name.replace(".", "/") + ".py") for name in imported(file)}
        left += [each for each in helpers - found if each.exists()]
    return found


def test_some_packages_are_not_for_all() -> None:
    assert "mlx" in of_some_systems()
    assert "numpy" not in of_some_systems()


@pytest.mark.parametrize("path", files_of_tests(), ids=lambda path: path.name)
def test_tests_for_all_systems(path: Path) -> None:
    for file in with_helpers(path):
        names = {name.split(".")[0] for name in imported(file)}
        assert not names & (of_some_systems() | OF_POSIX), file
