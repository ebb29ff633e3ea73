"""What no call can use is an error that names the argument, in one line, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pytest

import pyarrowquant
from pyarrowquant import Recipe, Rule, UsageError, formats
from pyarrowquant.calibration.calibrate import calibrate
from pyarrowquant.errors import ArgumentTypeError
from pyarrowquant.formats import write_compressed_tensors, write_gguf, write_mlx, write_onnx

TABLE = pyarrowquant.numpy_to_arrow_table({"a": np.ones((32, 64), np.float32)})
RESULT = pyarrowquant.quantize_batch_arrow(
    TABLE, group_size=32, zero_point="symmetric", scale_dtype="float16"
)
CALLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "rules": (Recipe, "Recipe: rules must be an iterable of Rule"),
    "expected": (lambda value: Recipe(expected=value), "Recipe: expected must be an Expected"),
    "reason": (lambda value: Rule("a", skip=True, reason=value), "Rule: reason must be a str"),
    "profile": (Recipe.profile, "profile must be a str"),
    "preset": (Recipe.preset, "preset must be a str"),
    "load": (Recipe.load, "path must be a str or a path"),
    "save": (Recipe().save, "path must be a str or a path"),
    "layer_name": (lambda value: Recipe().settings_of(value, (1, 2)), "layer_name must be a str"),
    "shape": (lambda value: Recipe().settings_of("a", value), "shape must be a sequence of int"),
    "recipe": (
        lambda value: pyarrowquant.quantize_batch_arrow(TABLE, recipe=value),
        "recipe must be a Recipe, the name of one, a path or a dict",
    ),
    "weight_column": (
        lambda value: Recipe.fit(TABLE, 4.5, weight_column=value),
        "weight_column must be a str",
    ),
    "continue_on_error": (
        lambda value: Recipe.fit(TABLE, 4.5, continue_on_error=value),
        "continue_on_error must be True or False",
    ),
    "progress": (
        lambda value: Recipe.fit(TABLE, 4.5, progress=value),
        "progress must be True, None or a function of (layer_name, fraction)",
    ),
    "bits_of": (
        lambda value: Recipe.fit(TABLE, 4.5, bits_of=value),
        "bits_of must be a function of a shape and Settings",
    ),
    "gguf": (lambda value: write_gguf(RESULT, value), "path must be a str or a path"),
    "onnx": (lambda value: write_onnx(RESULT, value), "path must be a str or a path"),
    "mlx": (lambda value: write_mlx(RESULT, value), "folder must be a str or a path"),
    "model": (
        lambda value: write_compressed_tensors(RESULT, "new", model=value),
        "model must be a str or a path",
    ),
    "calibrate": (lambda value: calibrate("model", value), "destination must be a str or a path"),
    "resume": (
        lambda value: calibrate("model", "x.safetensors", resume=value),
        "resume must be True or False",
    ),
    "texts": (
        lambda value: calibrate("model", "x.safetensors", value),
        "texts must be a sequence of paths",
    ),
}


class Lines:
    """A value that is shown in lines, as tables are."""

    def __repr__(self) -> str:
        return "a line\n" * 1000


@pytest.mark.parametrize("value", [7.5, Lines(), b"bytes"], ids=["float", "lines", "bytes"])
@pytest.mark.parametrize("name", CALLS)
def test_types(name: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, wanted = CALLS[name]
    with pytest.raises(ArgumentTypeError) as raised:
        call(value)
    message = str(raised.value)
    assert message.startswith(f"{wanted}, got {type(value).__name__}: ")
    assert "\n" not in message
    assert len(message) < 300
    assert list(tmp_path.iterdir()) == []


def test_rules_that_a_file_does_not_have_as_a_list() -> None:
    for rules in (0, False, "", {}):
        with pytest.raises(ArgumentTypeError, match="Recipe: rules must be a list, got "):
            Recipe.from_dict({"rules": rules})


PATHS: dict[str, Callable[[str], Any]] = {
    "read": pyarrowquant.read_weights,
    "convert": lambda path: pyarrowquant.convert("no.npz", path, to="compressed-tensors"),
    "gguf": lambda path: write_gguf(RESULT, path),
    "mlx": lambda path: write_mlx(RESULT, path),
    "load": Recipe.load,
}


@pytest.mark.parametrize("path", ["", "a\0b.json"])
@pytest.mark.parametrize("name", PATHS)
def test_what_is_no_path(name: str, path: str) -> None:
    with pytest.raises(UsageError, match=r"is no path\. Give the name of a file or folder"):
        PATHS[name](path)


@pytest.mark.parametrize("name", PATHS)
def test_paths_that_are_not_utf8(name: str) -> None:
    with pytest.raises(ValueError, match="the name is not UTF-8"):
        PATHS[name]("\udcff.json")


def test_uris_of_protocols_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match="'foo://x' cannot be opened: Protocol not known: foo"):
        pyarrowquant.read_weights("foo://x")


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "\ud800"])
def test_architectures_that_are_no_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"architecture .* is no name"):
        write_gguf(RESULT, tmp_path / "x.gguf", architecture=name)


def test_metadata_that_is_no_utf8(tmp_path: Path) -> None:
    for metadata in ({"a": "\ud800"}, {"\ud800": 1}, {"a": ["\ud800"]}):
        with pytest.raises(ValueError, match="is no text that UTF-8 has"):
            write_gguf(RESULT, tmp_path / "x.gguf", metadata=metadata)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.float32(4.5), np.float64(4.5), np.int64(5), 1e308])
def test_budgets_are_any_numbers(value: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", a=np.ones((32, 64), np.float32))
    done = pyarrowquant.convert(
        tmp_path / "model.npz", tmp_path / "x.parquet", bits_per_weight=value
    )
    assert done.bits_per_weight <= value
    assert Recipe.fit(TABLE, value).expected.bits_per_weight <= value


def test_yaml_errors_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"^Recipe is not YAML: .* line 1, column 5$"):
        Recipe.from_yaml("a: b: c")


@pytest.mark.parametrize("to", ["mlx", "parquet"])
def test_the_root_folder_is_no_destination(to: str, tmp_path: Path) -> None:
    source = tmp_path / "model.npz"
    np.savez(source, a=np.ones((32, 64), np.float32))
    for root in ("/", "//", f"{'../' * len(tmp_path.parts)}..", "file:///"):
        for call in (pyarrowquant.convert, pyarrowquant.plan):
            with pytest.raises(UsageError, match="is the root folder; give the name of a new one"):
                call(source, root, to=to)


@pytest.mark.parametrize("root", ["/", "//", "/../."])
@pytest.mark.parametrize("write", ["write_mlx", "write_compressed_tensors", "write_bitsandbytes"])
def test_nor_is_it_a_folder_of_writers(tmp_path: Path, write: str, root: str) -> None:
    model = {} if write == "write_mlx" else {"model": hf_folders.write(tmp_path / "model")}
    with pytest.raises(UsageError, match="is the root folder; give the name of a new one"):
        getattr(formats, write)(RESULT, root, **model)


@pytest.mark.parametrize("made", [Rule, pyarrowquant.Settings])
@pytest.mark.parametrize("name", ["bits", "bit_widht"])
def test_keywords_of_classes_say_which_is_meant(made: Any, name: str) -> None:
    with pytest.raises(ArgumentTypeError) as raised:
        made(**{name: 8})
    said = f"{made.__name__}() has no argument '{name}'. Did you mean 'bit_width'?"
    assert str(raised.value) == said
    assert made(bit_width=8).bit_width == 8


def test_protocols_of_destinations_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        pyarrowquant.convert(tmp_path / "model.npz", "foo://x/y.parquet")
    assert str(raised.value) == "'foo://x/y.parquet' cannot be opened: Protocol not known: foo"


def test_a_recipe_without_a_name() -> None:
    with pytest.raises(UsageError, match="Recipe '' is no file, and none of text,"):
        pyarrowquant.quantize_batch_arrow(TABLE, recipe="")


def test_settings_that_are_none() -> None:
    settings = pyarrowquant.Settings()
    with pytest.raises(ArgumentTypeError, match="must be a dict, got int: 5"):
        settings.with_overrides(5)  # type: ignore[arg-type]
    for said in ({"bit_with": 8}, {1: 2}):
        with pytest.raises(UsageError, match=r"^Unknown setting .* Known are 'bit_width', "):
            settings.with_overrides(said)  # type: ignore[arg-type]
