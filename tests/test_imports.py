"""Imports lead one way: no circles, and none that points up."""

from __future__ import annotations

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from gguf_models import saved
from package_imports import Imports, graph, modules

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


CONVERT, CLI = {"conversion.convert"}, {"cli"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from pyarrowquant import convert", CONVERT),
        ("from pyarrowquant import __version__, _version", {"_version"}),
        ("from pyarrowquant.conversion import convert", CONVERT),
        ("from pyarrowquant.conversion.convert import plan as x", CONVERT),
        ("import pyarrowquant\npyarrowquant.__version__", set()),
        ("import pyarrowquant\npyarrowquant.convert('a', 'b')", CONVERT),
        ("import pyarrowquant as p\ndef f(): return p.convert", CONVERT),
        ("import pyarrowquant as p\nclass A:\n    x: p.Conversion", {"conversion.outcome"}),
        ("import pyarrowquant as p\np.formats.write_gguf(1)", {"formats"}),
        ("import pyarrowquant as p\np.cli.quantize.quantize", {"cli.quantize"}),
        ("import pyarrowquant.cli", CLI),
        ("import pyarrowquant.cli\npyarrowquant.convert", {*CLI, *CONVERT}),
        ("import pyarrowquant.cli as c\nc.quantize.x", {*CLI, "cli.quantize"}),
        ("def f():\n    import pyarrowquant as p\n    return p.convert", CONVERT),
        ("import importlib\nimportlib.import_module('pyarrowquant.cli')", CLI),
        ("import importlib as i\ni.import_module('pyarrowquant.cli').main", CLI),
        ("from importlib import import_module as load\nload('pyarrowquant.cli')", CLI),
        ("__import__('pyarrowquant.cli')", CLI),
        ("from importlib import import_module\nimport_module('numpy')", set()),
        ("import numpy as pyarrowquant_like\npyarrowquant_like.convert", set()),
    ],
)
def test_imports_are_found_in_whatever_way_they_are_said(text: str, expected: set[str]) -> None:
    assert Imports("recipes.rule", text, modules().keys()).found() == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import pyarrowquant as p\ngetattr(p, 'convert')", "the package as a value"),
        ("import pyarrowquant\nx = pyarrowquant", "the package as a value"),
        ("from pyarrowquant.recipes import *", "imports all of"),
        ("from . import rule", "relative import"),
        ("from importlib import import_module\nimport_module(f'pyarrowquant.{x}')", "makes"),
        ("from importlib import import_module\nimport_module(name='pyarrowquant')", "makes"),
        ("import importlib\nload = importlib.import_module", "as a value"),
        ("import pyarrowquant.nothing", "no module"),
    ],
)
def test_what_cannot_be_told_is_refused(text: str, problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        Imports("recipes.rule", text, modules().keys()).found()


def test_what_is_imported_by_a_made_name_counts() -> None:
    found = graph()
    assert {"formats.gguf", "formats.tables"} <= found["formats.registry"]
    assert "cli.quantize" in found["cli"]


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
