"""What is said of tables that are wrong, and of files of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from conftest import plain, with_column
from safetensors.numpy import load_file

from pyarrowquant import (
    PlannedLayer,
    Settings,
    quantize_batch_arrow,
    quantize_stream,
    validate_arrow_input,
)
from pyarrowquant.cli.dequantize import _Rows
from pyarrowquant.conversion.planning import with_ragged_kept
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.recipes.recipe import Recipe, Rule

NAMES = ["a", "b", "c"]


@pytest.fixture
def result() -> pa.Table:
    return quantize_batch_arrow(plain(NAMES, [[1.0, 2.0], [3.0] * 9, [4.0]]), group_size=8)


def failed(*arguments: object) -> str:
    done = run(*arguments)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("command", ["inspect", "dequantize", "compare", "report"])
@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("scales", None, "scales"),
        ("shape", pa.array([[2], [-9], [1]], pa.list_(pa.int64())), "shape [-9]"),
        ("shape", pa.array([[2], None, [1]], pa.list_(pa.int64())), "Row 1: shape is null"),
        ("layer_name", pa.array(["a", None, "c"]), "Row 1: layer_name is null"),
        ("bit_width", pa.array([4, None, 4], pa.uint8()), "Row 1: bit_width is null"),
        ("bit_width", pa.array([4, 7, 4], pa.uint8()), "bit_width 7"),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_wrong_rows_of_files(
    tmp_path: Path,
    result: pa.Table,
    command: str,
    column: str,
    values: pa.Array | None,
    message: str,
    suffix: str,
) -> None:
    wrong = result.drop_columns(column) if values is None else with_column(result, column, values)
    path, weights = tmp_path / f"r{suffix}", tmp_path / "w.parquet"
    pq.write_table(plain(NAMES, [[1.0, 2.0], [3.0] * 9, [4.0]]), weights)
    if suffix == ".parquet":
        pq.write_table(wrong, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, wrong.schema) as writer:
            writer.write_table(wrong)
    arguments = {
        "inspect": [path],
        "dequantize": [path, tmp_path / "out.safetensors"],
        "compare": [weights, path],
        "report": [path, "--html", tmp_path / "page.html", "--original", weights],
    }
    said = failed(command, *arguments[command])
    assert str(path) in said
    assert message in said


def test_rows_come_by_their_number(tmp_path: Path, result: pa.Table) -> None:
    pq.write_table(result, tmp_path / "r.parquet")
    rows = _Rows(tmp_path / "r.parquet")
    for row in (0, 2, 1, 1, 0):
        assert rows[row]["layer_name"].to_pylist() == [NAMES[row]]


def test_dequantized_layers_have_their_values(tmp_path: Path, result: pa.Table) -> None:
    pq.write_table(result, tmp_path / "r.parquet")
    assert run("dequantize", tmp_path / "r.parquet", tmp_path / "w.safetensors").exit_code == 0
    found = load_file(tmp_path / "w.safetensors")
    assert found["b"].tolist() == [3.0] * 9
    assert found["c"].tolist() == [4.0]


def test_fixed_size_lists_of_nothing_are_refused() -> None:
    weights = pa.array([[], []], pa.list_(pa.float32(), 0))
    table = pa.table({"layer_name": ["a", "b"], "weights": weights})
    for call in (quantize_batch_arrow, validate_arrow_input, quantize_stream):
        with pytest.raises(ValueError, match=r"'weights' has type .*\[0\], whose lists have no"):
            call(table)
    lists = pa.array([[], []], pa.list_(pa.float32()))
    empty = quantize_batch_arrow(with_column(table, "weights", lists))
    assert empty["shape"].to_pylist() == [[0], [0]]


def test_floor_in_a_stream_names_the_layer() -> None:
    # 2 bits miss the floor, and scales of more bits are 0 in float16
    layers = [[0.0, 1.0], [0.0, 1e-7, 0.4e-7, 0.7e-7]]
    batches = plain(["fine", "tiny"], layers).to_reader(max_chunksize=1)
    stream = quantize_stream(batches, bit_width=2, scale_dtype="float16", quality_floor=0.9999)
    with pytest.warns(UserWarning, match=r"^Layer 'tiny' misses the quality_floor with . bits"):
        stream.read_all()


@pytest.mark.parametrize("rules", [None, Recipe([Rule("*", bit_width=8)], name="mine")])
def test_ragged_layers_are_kept_by_their_exact_names(rules: Recipe | None) -> None:
    names = ["plain", "a[0]*", "what?", "new\nline"]
    gguf, settings = FORMATS["gguf"], Settings(group_size=32)
    ragged = [PlannedLayer(name, (4, 33), settings) for name in names]
    fitting = PlannedLayer("no", (4, 32), settings)
    recipe, layers, kept = with_ragged_kept(gguf, [*ragged, fitting], rules)
    assert kept == names
    assert [layer.settings for layer in layers] == [*[None] * 4, settings]
    assert layers[-1] == fitting
    assert recipe is not None
    assert all(recipe.settings_of(name, (4, 33)) is None for name in names)
    for name in ("a0x", "whatx", "plainly", "Plain", "no"):
        assert recipe.settings_of(name, (4, 33)) is not None
    assert all(before != after for before, after in pairwise(recipe.rules))
    assert with_ragged_kept(gguf, [], rules) == (rules, [], [])
