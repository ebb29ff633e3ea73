"""Which modules of the package a module imports, in whatever way it says so."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from pathlib import Path

import pyarrowquant
import pyarrowquant.cli
from pyarrowquant.formats import registry

ROOT = "pyarrowquant"
PACKAGE = Path(pyarrowquant.__file__).parent
# Modules whose names are made when they are imported, by who does that. No other may.
MADE_NAMES = {
    "cli": [f"cli.{name}" for name in pyarrowquant.cli._COMMANDS],
    "formats": [f"formats.{name.removeprefix('write_')}" for name in pyarrowquant.formats.__all__],
    "formats.registry": [f"formats.{entry.module}" for entry in registry._ENTRIES.values()],
}
PUBLIC = {name: module for module, names in pyarrowquant._MODULES.items() for name in names}


def modules() -> dict[str, Path]:
    """Files by what comes after "pyarrowquant."; the package itself is "__init__"."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        found[name] = path
    return found


def graph() -> dict[str, set[str]]:
    """Modules of the package, and which of it they import; without the package itself.

    That gives what is public, and imports it when it is asked for.
    """
    known = modules()
    found = {
        name: Imports(name, path.read_text(encoding="utf-8"), known.keys()).found()
        for name, path in known.items()
        if name != "__init__"
    }
    assert all(name in known for names in found.values() for name in names)
    return found


class Imports:
    """What a module imports, wherever in it that is.

    Parameters
    ----------
    name : str
    text : str
        Of the module.
    known : set of str
        All modules of the package.
    """

    def __init__(self, name: str, text: str, known: Set[str]) -> None:
        self._name = name
        self._tree = ast.parse(text)
        self._known = known
        self._parents = {
            child: parent
            for parent in ast.walk(self._tree)
            for child in ast.iter_child_nodes(parent)
        }

    def found(self) -> set[str]:
        """Name the modules of the package.

        Raises
        ------
        AssertionError
            It cannot be told which they are.
        """
        return {*self._by_statements(), *self._by_attributes(), *self._by_calls()}

    def _by_statements(self) -> Iterator[str]:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if _is_ours(alias.name)]
                yield from (self._module(name) for name in names if name != ROOT)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self._name} has a relative import"
                if _is_ours(node.module or ""):
                    for alias in node.names:
                        assert alias.name != "*", f"{self._name} imports all of {node.module}"
                        yield from self._of(f"{node.module}.{alias.name}")

    def _by_attributes(self) -> Iterator[str]:
        """Name what is taken from the package, or a part of it, where that is a name itself."""
        ours = {
            alias.asname or ROOT: alias.name if alias.asname else ROOT
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Import)
            for alias in node.names
            if _is_ours(alias.name)
        }
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and node.id in ours:
                path, owner = ours[node.id], self._parents[node]
                is_attribute = isinstance(owner, ast.Attribute)
                assert is_attribute or path != ROOT, f"{self._name} has the package as a value"
                while isinstance(owner, ast.Attribute):
                    path, owner = f"{path}.{owner.attr}", self._parents[owner]
                yield from self._of(path)

    def _by_calls(self) -> Iterator[str]:
        """Name what is imported by functions."""
        functions = {"__import__"}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ImportFrom) and node.module == "importlib":
                functions |= {
                    alias.asname or alias.name
                    for alias in node.names
                    if alias.name in ("import_module", "__import__")
                }
        for node in ast.walk(self._tree):
            is_it = (isinstance(node, ast.Name) and node.id in functions) or (
                isinstance(node, ast.Attribute) and node.attr in ("import_module", "__import__")
            )
            if not is_it:
                continue
            call = self._parents[node]
            is_called = isinstance(call, ast.Call) and call.func is node
            assert is_called, f"{self._name} has a function that imports as a value"
            said = call.args[0] if isinstance(call, ast.Call) and call.args else None
            if isinstance(said, ast.Constant) and isinstance(said.value, str):
                if _is_ours(said.value):
                    yield self._module(said.value)
            else:
                assert self._name in MADE_NAMES, f"{self._name} makes the name of what it imports"
                yield from MADE_NAMES[self._name]

    def _module(self, path: str) -> str:
        name = path.removeprefix(ROOT).lstrip(".")
        assert name in self._known, f"{self._name} imports '{path}', which is no module"
        return name

    def _of(self, path: str) -> Iterator[str]:
        """Name the module that a path of names leads to, the longest that is one."""
        parts = path.split(".")[1:]
        if parts and parts[0] in PUBLIC:
            yield PUBLIC[parts[0]]
            return
        for count in range(len(parts), 0, -1):
            if ".".join(parts[:count]) in self._known:
                yield ".".join(parts[:count])
                return


def _is_ours(module: str) -> bool:
    return module == ROOT or module.startswith(f"{ROOT}.")
