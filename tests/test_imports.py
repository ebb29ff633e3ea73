"""Imports lead one way: no circles, and none that points up."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from gguf_models import saved

import pyarrowquant

PACKAGE = Path(pyarrowquant.__file__).parent
# Each folder, and the modules beside them, may import what comes before.
FLOORS = [
    {"errors", "_version"},
    {"_core"},
    {"reading"},
    {"rescaling"},
    {"llama_cpp"},
    {"recipes"},
    {"tables", "arrays", "decoded", "stream", "comparison"},
    {"distributed", "formats"},
    {"calibration", "conversion", "evaluation"},
    {"cli"},
    {"__main__"},
]


def modules() -> dict[str, Path]:
    """Files by what comes after "pyarrowquant."; the package itself is "__init__"."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        found[name] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Names of the package's own modules that a file imports, wherever in it that is."""
    public = {name: module for module, names in pyarrowquant._MODULES.items() for name in names}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("pyarrowquant.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            root, _, module = (node.module or "").partition(".")
            for alias in node.names if root == "pyarrowquant" else []:
                if module == "" and alias.name in public:
                    yield public[alias.name]
                elif f"{module}.{alias.name}".strip(".") in known:
                    yield f"{module}.{alias.name}".strip(".")
                elif module:
                    yield module


def graph() -> dict[str, set[str]]:
    known = modules()
    found = {name: set(imported(path, known)) for name, path in known.items()}
    assert all(name in known for names in found.values() for name in names)
    del found["__init__"]  # gives what is public, and imports it when it is asked for
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    TopologicalSorter(graph()).prepare()  # raises CycleError


def test_no_folder_of_a_folder_imports_itself_by_way_of_others() -> None:
    """Of those two deep, such as conversion.partial, each is a box; modules beside them are too."""

    def box(name: str) -> str:
        return ".".join(name.split(".")[:2])

    boxes: dict[str, set[str]] = {}
    for name, others in graph().items():
        boxes.setdefault(box(name), set()).update({box(other) for other in others} - {box(name)})
    TopologicalSorter(boxes).prepare()


def test_no_import_points_up() -> None:
    floors = {name: height for height, names in enumerate(FLOORS) for name in names}
    boxes = {name: name.split(".")[0] for name in modules() if name != "__init__"}
    assert set(boxes.values()) == floors.keys()
    up = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if floors[boxes[other]] > floors[boxes[name]]
    ]
    assert up == []


def test_folders_import_no_circle() -> None:
    boxes: dict[str, set[str]] = {}
    for name, others in graph().items():
        box = boxes.setdefault(name.split(".")[0], set())
        box.update(other.split(".")[0] for other in others)
        box.discard(name.split(".")[0])
    TopologicalSorter(boxes).prepare()


# Imports are half of the time of a command on a small model.
NOT_FOR_GGUF = {
    "pyarrow.fs",
    "pyarrow.parquet",
    "pyarrowquant.cli.report",
    "pyarrowquant.conversion.clusters.on_ray",
    "pyarrowquant.evaluation",
    "pyarrowquant.formats.onnx",
    "pyarrowquant.llama_cpp.converting",
}


def test_a_command_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    source = saved(tmp_path / "x.gguf")
    program = (
        "import sys; from pyarrowquant.cli import main; "
        f"main(['quantize', {str(source)!r}, {str(tmp_path / 'y.gguf')!r}], standalone_mode=False);"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.split())
    assert "pyarrowquant.formats.gguf" in loaded
    assert loaded & NOT_FOR_GGUF == set()
