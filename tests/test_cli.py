"""The command line, as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from child import HANG, wait_until
from commands import run
from safetensors.numpy import load_file, save_file

from pyarrowquant import (
    Recipe,
    Rule,
    compare,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch_arrow,
)


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (40, 128),
        "model.layers.0.mlp.up_proj.weight": (64, 256),
        "model.layers.0.mlp.down_proj.weight": (128, 64),
        "model.norm.weight": (64,),
    }
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture
def model(weights: dict[str, np.ndarray], tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({**weights, "model.position_ids": np.arange(4)}, path)
    return path


def succeeded(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(*arguments: object, code: int = 1) -> str:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert not result.stdout
    return result.stderr


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(path: Path) -> pa.Table:
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()


def expected(weights: dict[str, np.ndarray], **options: Any) -> dict[str, dict[str, Any]]:
    options = {"method": "mse", "metrics": True, **options}
    rows = quantize_batch_arrow(numpy_to_arrow_table(weights), **options).to_pylist()
    return {row.pop("layer_name"): row for row in rows}


def by_name(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row.pop("layer_name"): row for row in table.to_pylist()}


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out.feather"])
def test_quantize(model: Path, weights: dict[str, np.ndarray], tmp_path: Path, name: str) -> None:
    text = succeeded("quantize", model, tmp_path / name)
    assert by_name(read(tmp_path / name)) == expected(weights)
    assert "4 layers, 29,760 weights" in text
    assert names_in(tmp_path) == sorted(["model.safetensors", name])


def test_settings(model: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out.arrow"
    settings = ["--bits", 3, "--group-size", 32, "--method", "rtn", "--zero-point", "symmetric"]
    succeeded("quantize", model, out, "--to", "arrow", *settings, "--scale-dtype", "float16")
    table = pa.ipc.open_file(out).read_all()
    assert by_name(table) == expected(
        weights,
        bit_width=3,
        group_size=32,
        method="rtn",
        zero_point="symmetric",
        scale_dtype="float16",
    )


def test_recipes_floors_and_budgets(
    model: Path, weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    succeeded("quantize", model, out, "--recipe", "text-edge")
    assert by_name(read(out)) == expected(weights, recipe=Recipe.preset("text", "edge"))
    recipe = Recipe([Rule("*up_proj*", bit_width=8)], default={"bit_width": 5})
    recipe.save(tmp_path / "mine.yaml")
    succeeded("quantize", model, out, "--recipe", tmp_path / "mine.yaml", "--overwrite")
    assert by_name(read(out)) == expected(weights, recipe=recipe)
    floor = {"relative_error": 0.07, "cosine": 0.9}
    text = "relative_error=0.07,cosine=0.9"
    succeeded("quantize", model, out, "--quality-floor", text, "--overwrite")
    assert by_name(read(out)) == expected(weights, quality_floor=floor)
    succeeded("quantize", model, out, "--bits-per-weight", 4.6, "--overwrite", "--recipe", "text")
    fitted = Recipe.fit(numpy_to_arrow_table(weights), 4.6, recipe=Recipe.preset("text"))
    assert by_name(read(out)) == expected(weights, recipe=fitted)


def test_json_has_the_totals(model: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    summary = json.loads(succeeded("quantize", model, out, "--json"))
    rows = expected(weights).values()
    squared = sum(row["mse"] * np.prod(row["shape"]) for row in rows)
    norm = sum(np.square(w.astype(np.float64)).sum() for w in weights.values())
    stored = sum(len(row["quantized_data"]) + 8 * len(row["scales"]) for row in rows)
    assert summary["layers"] == 4
    assert summary["relative_error"] == pytest.approx(np.sqrt(squared / norm))
    assert summary["bits_per_weight"] == pytest.approx(8 * stored / summary["weights"])
    assert summary["bytes"] == out.stat().st_size


def test_formats_of_engines(model: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    import gguf
    import onnx

    text = ["--recipe", "text"]
    succeeded("quantize", model, tmp_path / "m.gguf", *text)
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert {name: t.tensor_type.name for name, t in tensors.items()} == {
        "model.embed_tokens.weight": "F32",
        "model.layers.0.mlp.up_proj.weight": "Q4_0",
        "model.layers.0.mlp.down_proj.weight": "Q4_0",
        "model.norm.weight": "F32",
        "model.position_ids": "I64",
    }
    settings = {"group_size": 32, "zero_point": "symmetric", "scale_dtype": "float16"}
    up = "model.layers.0.mlp.up_proj.weight"
    result = quantize_batch_arrow(numpy_to_arrow_table({up: weights[up]}), method="mse", **settings)
    decoded = dequantize_batch_arrow(result)["weights"][0].values.to_numpy()
    blocks = gguf.quants.dequantize(tensors[up].data, tensors[up].tensor_type)
    assert np.array_equal(blocks.ravel(), decoded)
    assert np.array_equal(tensors["model.norm.weight"].data, weights["model.norm.weight"])

    source = tmp_path / "source"
    source.mkdir()
    model.rename(source / "model.safetensors")
    (source / "config.json").write_text('{"model_type": "llama"}')
    (source / "tokenizer.json").write_text("{}")
    summary = json.loads(
        succeeded("quantize", source, tmp_path / "mlx", "--to", "mlx", *text, "--json")
    )
    assert summary["layers"] == 2
    assert names_in(tmp_path / "mlx") == ["config.json", "model.safetensors", "tokenizer.json"]
    config = json.loads((tmp_path / "mlx" / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["quantization"]["group_size"] == 64

    succeeded("quantize", source, tmp_path / "m.onnx", *text)
    nodes = onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.node
    assert [node.op_type for node in nodes] == ["MatMulNBits"] * 2
    error = failed("quantize", source, tmp_path / "m3.gguf", *text, "--bits", 3)
    assert "GGUF cannot hold layer 'model.layers.0.mlp.down_proj.weight': 3 bits" in error
    assert "m3.gguf" not in names_in(tmp_path)


def test_failing_layers(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    model, out = tmp_path / "model.npz", tmp_path / "out.parquet"
    np.savez(model, bad=np.array([[np.nan]], np.float32), **weights)
    error = failed("quantize", model, out)
    assert error.startswith("Error: Layer 'bad' contains NaN or Inf at index 0 (NaN)")
    assert names_in(tmp_path) == ["model.npz"]
    result = run("quantize", model, out, "--continue-on-error", "--json")
    assert result.exit_code == 0
    assert result.stderr.startswith("Skipped: Layer 'bad' contains NaN")
    assert len(json.loads(result.stdout)["skipped"]) == 1
    assert by_name(read(out)) == expected(weights)


def test_dry_run_writes_nothing(model: Path, tmp_path: Path) -> None:
    plan = ["quantize", model, tmp_path / "out.parquet", "--dry-run", "--recipe", "text"]
    assert "2 of 4 layers would be quantized" in succeeded(*plan)
    layers = json.loads(succeeded(*plan, "--json"))["layers"]
    assert [layer["settings"] is None for layer in layers].count(True) == 2
    failed(*plan, "--method", "awq", code=2)
    failed(*plan, "--group-size", 7)
    assert names_in(tmp_path) == ["model.safetensors"]


def test_what_is_refused(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    out.write_text("mine")
    assert "'--overwrite'" not in failed("quantize", model, out)
    assert out.read_text() == "mine"
    assert "is a folder" in failed("quantize", model, tmp_path, "--to", "gguf", code=2)
    assert "--to" in failed("quantize", model, tmp_path / "out.txt", code=2)
    assert "does not exist" in failed("quantize", model, tmp_path / "no" / "out.arrow")
    assert "nope" in failed("quantize", tmp_path / "nope.safetensors", tmp_path / "o.arrow")
    wrong = ["quantize", model, tmp_path / "o.arrow"]
    assert "'awq' is not one of" in failed(*wrong, "--method", "awq", code=2)
    both = ["--bits", 4, "--bits-per-weight", 4]
    assert "exclude each other" in failed(*wrong, *both, code=2)
    error = failed(*wrong, "--recipe", tmp_path / "none.json")
    assert "none.json" in error
    Recipe(default="skip").save(tmp_path / "none.json")
    assert "No layer was quantized" in failed(*wrong, "--recipe", tmp_path / "none.json")
    assert "Invalid group_size: 7" in failed(*wrong, "--group-size", 7)
    assert "'7'" in failed(*wrong, "--bits", 7, code=2)
    assert "Recipe 'lama' is no file" in failed(*wrong, "--recipe", "lama")
    assert "NAME=NUMBER" in failed(*wrong, "--quality-floor", "cosine=high", code=2)
    assert "smallest candidates" in failed(*wrong, "--bits-per-weight", 1)
    (tmp_path / "cut.safetensors").write_bytes(model.read_bytes()[:-1])
    assert "cut.safetensors" in failed("quantize", tmp_path / "cut.safetensors", wrong[2])
    assert "o.arrow" not in names_in(tmp_path)


def test_inspect(model: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    text = succeeded("inspect", model)
    assert "model.position_ids" in text
    assert "I64" in text
    layers = json.loads(succeeded("inspect", model, "--json"))["layers"]
    sizes = {layer["layer_name"]: layer["bytes"] for layer in layers}
    assert {name: sizes[name] for name in weights} == {n: w.nbytes for n, w in weights.items()}
    out = tmp_path / "out.parquet"
    succeeded("quantize", model, out)
    shown = json.loads(succeeded("inspect", out, "--json"))
    assert [layer["bit_width"] for layer in shown["layers"]] == [4] * 4
    assert shown["weights"] == sum(w.size for w in weights.values())
    assert "bits a weight" in succeeded("inspect", out)


def test_compare_and_dequantize(
    model: Path, weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    out, decoded = tmp_path / "out.parquet", tmp_path / "decoded.arrow"
    succeeded("quantize", model, out)
    succeeded("dequantize", out, decoded)
    assert read(decoded).to_pylist() == dequantize_batch_arrow(read(out)).to_pylist()
    errors = compare(numpy_to_arrow_table(weights), read(out)).to_pylist()
    for result in (out, decoded):
        shown = json.loads(succeeded("compare", model, result, "--json"))
        assert shown["layers"] == errors
    assert shown["totals"]["layers"] == 4
    worst = max(errors, key=lambda layer: layer["relative_error"])
    text = succeeded("compare", model, out, "--worst", 1)
    assert text.splitlines()[1].split()[0] == worst["layer_name"]
    assert "weights" in failed("compare", out, decoded)
    for dtype in ("float32", "float16"):
        file = tmp_path / f"{dtype}.safetensors"
        succeeded("dequantize", out, file, "--dtype", dtype)
        rows = dequantize_batch_arrow(read(out), dtype=dtype).to_pylist()
        tensors = load_file(file)
        assert set(tensors) == {row["layer_name"] for row in rows}
        for row in rows:
            tensor = tensors[row["layer_name"]]
            assert tensor.dtype == dtype
            assert np.array_equal(tensor, np.reshape(row["weights"], row["shape"]))
    assert "no file of results" in failed("dequantize", decoded, tmp_path / "x.arrow")
    assert "exists" in failed("dequantize", out, decoded)


def test_recipe_commands(model: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    shown = succeeded("recipe", "show", "text-local")
    assert Recipe.from_json(shown) == Recipe.preset("text", "local")
    assert succeeded("recipe", "show", "text-local", "--json") == shown
    assert "exclude" in failed("recipe", "show", "text", "--json", "--yaml", code=2)
    shown = succeeded("recipe", "show", "cloud", "--yaml")
    assert Recipe.from_yaml(shown) == Recipe.profile("cloud")
    fitted = tmp_path / "fitted.json"
    fit = ["recipe", "fit", model, fitted, "--bits-per-weight", 5]
    assert "bits a weight" in succeeded(*fit)
    recipe = Recipe.fit(numpy_to_arrow_table(weights), 5)
    assert Recipe.load(fitted) == recipe
    assert "exists" in failed(*fit)
    assert recipe.expected is not None
    assert json.loads(succeeded(*fit, "--overwrite", "--json")) == {
        "destination": str(fitted),
        "bits_per_weight": recipe.expected.bits_per_weight,
        "relative_error": recipe.expected.relative_error,
    }


def test_help_shows_examples() -> None:
    for command in ("quantize", "inspect", "compare", "dequantize", "report"):
        assert f"  pyarrowquant {command} " in succeeded(command, "--help")
    assert "quantize" in succeeded("--help")


def test_progress_is_plain_lines_where_there_is_no_terminal(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrowquant.cli._progress._SECONDS_BETWEEN_LINES", 0)
    result = run("quantize", model, tmp_path / "out.parquet")
    lines = result.stderr.splitlines()
    assert lines
    assert all(line.startswith("quantize: ") and " layers, " in line for line in lines)


def script(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pyarrowquant", *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **options)


def test_the_installed_command(model: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("pyarrowquant")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pyarrowquant, version ")
    process = script("quantize", model, tmp_path / "out.parquet")
    assert process.wait(HANG) == 0, process.communicate()
    process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="signals and file limits of POSIX")
@pytest.mark.parametrize("how", ["interrupt", "kill", "full disk"])
def test_nothing_incomplete_gets_the_final_name(tmp_path: Path, how: str) -> None:
    block = np.random.default_rng(0).standard_normal((256, 1024), np.float32)
    source = tmp_path / "source"
    source.mkdir()
    model = source / "model.safetensors"
    save_file({f"layer.{k}.weight": block for k in range(60)}, model)
    before = model.read_bytes()
    target = tmp_path / "target"
    target.mkdir()
    out = target / "out.parquet"
    slow = ["--method", "hqq", "--zero-point", "float"]
    options: dict[str, Any] = {"env": {**os.environ, "PYARROWQUANT_KERNEL": "scalar"}}
    if how == "full disk":
        import resource

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

        options = {"preexec_fn": limit}
    process = script("quantize", model, out, *slow, **options)
    if how != "full disk":
        assert wait_until(lambda: any(name.endswith(".partial") for name in names_in(target)))
        process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=HANG)
    assert process.returncode == {"interrupt": 130, "kill": -9, "full disk": 1}[how], stderr
    assert not out.exists()
    assert not stdout
    if how == "interrupt":
        assert stderr.splitlines()[-1] == "Interrupted"
    elif how == "full disk":
        assert stderr.startswith("Error: ")
        assert len(stderr.splitlines()) == 1
    if how != "kill":
        assert names_in(target) == []
    assert model.read_bytes() == before


def test_a_table_for_each_shard(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    halves = dict(list(weights.items())[:2]), dict(list(weights.items())[2:])
    for half, name in zip(halves, ("a", "b"), strict=True):
        save_file(half, source / f"{name}.safetensors")
    out = tmp_path / "out"
    succeeded("quantize", source, out, "--to", "parquet")
    assert names_in(out) == ["a.parquet", "b.parquet"]
    for half, name in zip(halves, ("a", "b"), strict=True):
        assert by_name(read(out / f"{name}.parquet")) == expected(half)
    shown = json.loads(succeeded("inspect", out, "--json"))
    assert {layer["layer_name"] for layer in shown["layers"]} == set(weights)
    assert json.loads(succeeded("compare", source, out, "--json"))["totals"]["layers"] == 4
    succeeded("dequantize", out, tmp_path / "decoded.arrow")
    assert set(by_name(read(tmp_path / "decoded.arrow"))) == set(weights)
    assert "exists" in failed("quantize", source, out, "--to", "parquet")
    succeeded("quantize", source, out, "--to", "arrow", "--overwrite")
    assert names_in(out) == ["a.arrow", "b.arrow"]
    pa_table = read(out / "a.arrow")
    pq.write_table(pa_table, out / "z.parquet")
    assert "twice" in failed("compare", source, out)
    assert "other columns" in failed("inspect", _with_stranger(out))


def _with_stranger(folder: Path) -> Path:
    pq.write_table(pa.table({"quantized_data": [1]}), folder / "c.parquet")
    return folder


def test_overwriting_folders_with_care(model: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letters.txt").write_text("dear")
    to = ["--to", "mlx", "--recipe", "text"]
    assert "exists" in failed("quantize", model, mine, *to)
    assert "has no model, neither" in failed("quantize", model, mine, *to, "--overwrite")
    assert "source in it" in failed("quantize", model, tmp_path, *to, "--overwrite")
    assert "is a file" in failed("quantize", model, model, *to, "--overwrite", code=2)
    succeeded("quantize", model, tmp_path / "other", *to)
    (tmp_path / "other" / "checkpoint").mkdir()
    error = failed("quantize", model, tmp_path / "other", *to, "--overwrite")
    assert "has the folder 'checkpoint', which would be lost" in error
    assert (mine / "letters.txt").read_text() == "dear"


def test_batches_keep_to_a_size_of_memory(model: Path, tmp_path: Path) -> None:
    from pyarrowquant.conversion.memory import batch_bytes

    out = tmp_path / "out.parquet"
    for text in ("much", "5iB", "-1G", "130M"):
        failed("quantize", model, out, "--max-memory", text, code=2)
    succeeded("quantize", model, out, "--max-memory", "131MiB")
    assert pq.ParquetFile(out).num_row_groups == 1
    big = tmp_path / "big.safetensors"
    save_file({f"{k}.weight": np.ones((256, 1024), np.float32) for k in range(4)}, big)
    succeeded("quantize", big, out, "--max-memory", "0.139GB", "--overwrite")
    assert pq.ParquetFile(out).num_row_groups == 2
    assert batch_bytes(139_000_000) < 3 << 20


@pytest.mark.parametrize("kind", ["mlx", "gguf"])
def test_rows_of_broken_groups_stay_as_they_are(
    weights: dict[str, np.ndarray], tmp_path: Path, kind: str
) -> None:
    ragged = {**weights, "odd.weight": np.ones((8, 72), np.float32)}
    source, out = tmp_path / "model.safetensors", tmp_path / "out"
    save_file(ragged, source)
    result = run("quantize", source, out, "--to", kind)
    assert result.exit_code == 0, result.output
    assert "Kept, as the format does not take their shape: odd.weight" in result.stderr
    if kind == "gguf":
        import gguf

        tensors = {t.name: t.tensor_type.name for t in gguf.GGUFReader(out).tensors}
        assert tensors["odd.weight"] == "F32"
    else:
        assert load_file(out / "model.safetensors")["odd.weight"].shape == (8, 72)


def test_what_a_format_cannot_hold_is_found_before_any_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("there was work")

    monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", never)
    out = tmp_path / "out"
    for to, options, said in (
        ("gguf", ["--bits", 3], "3 bits"),
        ("gguf", ["--group-size", 64], "group_size 64"),
        ("onnx", ["--bits", 5], "5 bits"),
        ("onnx", ["--group-size", 48], "group_size 48"),
        ("mlx", ["--group-size", 256], "group_size 256"),
    ):
        error = failed("quantize", model, out, "--to", to, *options, "--recipe", "text")
        assert said in error, (to, error)


def test_budgets_within_the_widths_of_a_format(model: Path, tmp_path: Path) -> None:
    import onnx

    out = tmp_path / "m.onnx"
    succeeded("quantize", model, out, "--bits-per-weight", 6.2)
    nodes = onnx.load(out, load_external_data=False).graph.node
    bits = {a.i for node in nodes for a in node.attribute if a.name == "bits"}
    assert bits <= {2, 4, 8}
    assert len(bits) > 1


def test_scales_of_mlx_in_any_type(model: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    options = ["--to", "mlx", "--recipe", "text", "--scale-dtype", "float32"]
    succeeded("quantize", model, tmp_path / "out", *options)
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as tensors:
        name = "model.layers.0.mlp.up_proj.scales"
        assert tensors.get_slice(name).get_dtype() == "F32"


def onnx_model(path: Path, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Write two MatMuls with a Relu between; gives their weights as layers."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(1)
    layers = {"up": (64, 128), "down": (32, 64)}
    weights = {name: rng.standard_normal(shape).astype(dtype) for name, shape in layers.items()}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "down"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, ["rows", 128])]
    outputs = [helper.make_tensor_value_info("y", kind, ["rows", 32])]
    tensors = [
        numpy_helper.from_array(np.ascontiguousarray(w.T), name) for name, w in weights.items()
    ]
    graph = helper.make_graph(nodes, "model", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return weights


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_onnx_models_keep_their_graph(tmp_path: Path, dtype: type) -> None:
    import onnxruntime

    source, out = tmp_path / "model.onnx", tmp_path / "small.onnx"
    weights = onnx_model(source, dtype)
    assert "2 layers" in succeeded("quantize", source, out, "--group-size", 32)
    x = np.random.default_rng(2).standard_normal((5, 128)).astype(dtype)
    (y,) = onnxruntime.InferenceSession(out).run(None, {"x": x})
    scale_dtype = "float16" if dtype is np.float16 else "float32"
    rows = expected(weights, group_size=32, scale_dtype=scale_dtype)
    result = quantize_batch_arrow(
        numpy_to_arrow_table(weights), method="mse", group_size=32, scale_dtype=scale_dtype
    )
    decoded = {
        row["layer_name"]: np.reshape(np.float32(row["weights"]), row["shape"])
        for row in dequantize_batch_arrow(result).to_pylist()
    }
    assert set(rows) == set(decoded)
    wanted = np.maximum(x.astype(np.float32) @ decoded["up"].T, 0) @ decoded["down"].T
    assert np.allclose(y, wanted, rtol=1e-2, atol=0.3 if dtype is np.float16 else 1e-3)
    shown = json.loads(succeeded("inspect", source, "--json"))["layers"]
    assert {layer["layer_name"]: layer["shape"] for layer in shown} == {
        "up": [64, 128],
        "down": [32, 64],
    }


def test_onnx_sources_are_not_overwritten(tmp_path: Path) -> None:
    import onnx

    source = tmp_path / "model.onnx"
    onnx_model(source)
    for name in ("small.onnx.data", f"small.onnx.{'0' * 16}.data"):  # as data of ours is named
        data = {"save_as_external_data": True, "location": name, "size_threshold": 0}
        onnx.save(onnx.load(source), source, **data)
        before = source.read_bytes(), (tmp_path / name).read_bytes()
        assert "is the source" in failed("quantize", source, source, "--overwrite")
        assert "is the source" in failed(
            "quantize", source, tmp_path / name, "--to", "onnx", "--overwrite"
        )
        succeeded("quantize", source, tmp_path / "small.onnx", "--overwrite")
        assert before == (source.read_bytes(), (tmp_path / name).read_bytes())
        onnx.checker.check_model(tmp_path / "small.onnx")


@pytest.fixture
def llama(weights: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """A model folder as transformers has it, as far as writing looks at it."""
    folder = tmp_path / "llama"
    folder.mkdir()
    heads = {"lm_head.weight": weights["model.embed_tokens.weight"]}
    save_file({**weights, **heads}, folder / "model.safetensors")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_compressed_tensors(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = json.loads(
        succeeded(
            "quantize", llama, out, "--to", "compressed-tensors", "--group-size", 32, "--json"
        )
    )
    assert summary["layers"] == 2
    assert names_in(out) == ["config.json", "model.safetensors", "tokenizer.json"]
    said = json.loads((out / "config.json").read_text())["quantization_config"]
    assert said["config_groups"]["group_0"]["weights"]["group_size"] == 32
    assert {"lm_head", "model.embed_tokens"} <= set(said["ignore"])
    tensors = load_file(out / "model.safetensors")
    assert tensors["model.layers.0.mlp.up_proj.weight_packed"].shape == (64, 32)
    assert tensors["lm_head.weight"].shape == (40, 128)


def test_compressed_tensors_is_refused_before_any_work(
    llama: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", None)
    out = tmp_path / "out"
    to = ["--to", "compressed-tensors", "--group-size", 32]
    assert "zero-points are not integers" in failed(
        "quantize", llama, out, *to, "--zero-point", "float"
    )
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    assert "--scale-dtype bfloat16" in failed(
        "quantize", llama, out, *to, "--scale-dtype", "float32"
    )
    Recipe([Rule("*up_proj*", bit_width=8)]).save(tmp_path / "mixed.json")
    mixed = [*to, "--recipe", tmp_path / "mixed.json", "--zero-point", "integer"]
    assert "only with symmetric zero-points" in failed("quantize", llama, out, *mixed)
    assert "is a file" in failed("quantize", model, out, *to)
    assert "out" not in names_in(tmp_path)


def test_gguf_models_keep_all_else(tmp_path: Path) -> None:
    import gguf

    rng = np.random.default_rng(0)
    source, out = tmp_path / "model.gguf", tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_string("general.name", "mine")
    for name, shape in {
        "token_embd.weight": (40, 64),
        "blk.0.ffn_up.weight": (64, 64),
        "blk.0.ffn_norm.weight": (64,),
        "blk.0.ffn_gate_inp.weight": (8, 64),
        "blk.0.odd.weight": (8, 40),
    }.items():
        writer.add_tensor(name, rng.standard_normal(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    result = run("quantize", source, out)
    assert result.exit_code == 0, result.output
    assert "Kept, as the format does not take their shape: blk.0.odd.weight" in result.stderr
    reader = gguf.GGUFReader(out)
    assert {tensor.name: tensor.tensor_type.name for tensor in reader.tensors} == {
        "token_embd.weight": "Q8_0",
        "blk.0.ffn_up.weight": "Q4_0",
        "blk.0.ffn_norm.weight": "F32",
        "blk.0.ffn_gate_inp.weight": "F32",
        "blk.0.odd.weight": "F32",
    }
    assert reader.get_field("general.name").contents() == "mine"
    assert "is the source" in failed("quantize", source, source, "--overwrite")
    assert "5 layers" in succeeded("inspect", source)


def test_tensors_of_all_dtypes_are_kept(tmp_path: Path) -> None:
    import gguf

    tensors = {
        "up.weight": np.random.default_rng(0).standard_normal((64, 64), np.float32),
        "ids": np.arange(6, dtype=np.int64),
        "mask": np.array([True, False]),
        "double.weight": np.ones((2, 2), np.float64),
        "small": np.arange(4, dtype=np.int8),
    }
    source = tmp_path / "model.safetensors"
    save_file(tensors, source)
    succeeded("quantize", source, tmp_path / "mlx", "--to", "mlx")
    found = load_file(tmp_path / "mlx" / "model.safetensors")
    assert set(found) == {*tensors, "up.scales", "up.biases"}
    for name in set(tensors) - {"up.weight"}:
        assert found[name].dtype == tensors[name].dtype
        assert np.array_equal(found[name], tensors[name])
    result = run("quantize", source, tmp_path / "m.gguf")
    assert result.exit_code == 0, result.output
    assert "Left out, as the format has no BOOL: mask" in result.stderr
    kept = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert set(kept) == set(tensors) - {"mask"}
    for name in ("ids", "double.weight", "small"):
        assert np.array_equal(kept[name], tensors[name])


def test_sources_are_never_replaced(llama: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    tables = tmp_path / "tables"
    succeeded("quantize", llama, table)
    succeeded("quantize", llama, tables, "--to", "parquet")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    shard, uri = llama / "model.safetensors", f"file://{llama}"
    over = "--overwrite"
    for source in (llama, uri, shard, f"file://{shard}"):
        assert "is the source" in failed("quantize", source, shard, "--to", "gguf", over)
        page = ["report", table, "--html", shard, "--original", source]
        assert "is the source" in failed(*page, over)
        fit = ["recipe", "fit", source, llama / "config.json", "--bits-per-weight", 5]
        assert "is the source" in failed(*fit, over)
    for source in (llama, uri):
        assert "has the source in it" in failed("quantize", source, llama, "--to", "mlx", over)
    part = tables / "model.parquet"
    assert "is the source" in failed("dequantize", tables, part, over)
    assert "is the source" in failed("report", tables, "--html", part, over)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.safetensors").symlink_to(shard)
    linked = snapshot / "model.safetensors"
    assert "has the source in it" in failed("quantize", linked, snapshot, "--to", "mlx", over)
    assert before == {p: p.read_bytes() for p in before}
    assert linked.is_symlink()


def test_links_lead_to_where_the_output_lies(llama: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    succeeded("quantize", llama, tmp_path / "link", "--to", "mlx")
    assert (tmp_path / "link").is_symlink()
    assert "model.safetensors" in names_in(real)
    (tmp_path / "t.parquet").symlink_to(tmp_path / "target.parquet")
    succeeded("quantize", llama, tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").is_symlink()
    assert (tmp_path / "target.parquet").is_file()


def test_what_appears_at_the_destination_meanwhile_is_kept(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrowquant.conversion.job as job

    out, write = tmp_path / "out.parquet", job.write

    def slow(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        out.write_text("mine")

    monkeypatch.setattr(job, "write", slow)
    assert "was made while this ran" in failed("quantize", llama, out)
    assert out.read_text() == "mine"
    monkeypatch.undo()
    assert "was made while" in failed("quantize", llama, out, "--resume")
    succeeded("quantize", llama, out, "--resume", "--overwrite")
    assert read(out).num_rows == 5
    assert not list(tmp_path.glob(".*"))


def test_the_work_of_others_is_not_touched(llama: Path, tmp_path: Path) -> None:
    mine = tmp_path / ".out.parquet.partial"
    mine.mkdir()
    (mine / "letters.txt").write_text("dear")
    assert "it is not of this program" in failed("quantize", llama, tmp_path / "out.parquet")
    assert names_in(mine) == ["letters.txt"]


def test_the_current_folder_is_no_destination(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    error = failed("quantize", llama, ".", "--to", "mlx", code=2)
    assert "is the current folder" in error


def test_quantized_models_are_refused(llama: Path, tmp_path: Path) -> None:
    succeeded("quantize", llama, tmp_path / "mlx", "--to", "mlx")
    error = failed("quantize", tmp_path / "mlx", tmp_path / "again.parquet")
    assert "is quantized already: its config.json has quantization" in error


@pytest.mark.parametrize("kind", ["mlx", "gguf", "onnx", "compressed-tensors"])
def test_layers_that_are_too_small_or_empty_are_kept(
    llama: Path, tmp_path: Path, kind: str
) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["few.weight"] = np.ones((8, 24), np.float32)
    tensors["none.weight"] = np.ones((0, 64), np.float32)
    save_file(tensors, llama / "model.safetensors")
    options = ["--group-size", 32] if kind == "compressed-tensors" else []
    result = run("quantize", llama, tmp_path / "out", "--to", kind, *options)
    assert result.exit_code == 0, result.output
    assert "none.weight" in result.stderr


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("onnx", []),
        ("gguf", []),
        ("gguf", ["--zero-point", "integer"]),
        ("onnx", ["--zero-point", "float"]),
    ],
)
@pytest.mark.parametrize("chosen", [["--quality-floor", "0.9985"], ["--bits-per-weight", 6]])
def test_only_widths_of_the_format_are_chosen(
    llama: Path, tmp_path: Path, kind: str, options: list[str], chosen: list[object]
) -> None:
    succeeded("quantize", llama, tmp_path / "out", "--to", kind, *options, *chosen)


def test_settings_that_do_not_fit_are_refused_before_any_work(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", None)
    model, out = tmp_path / "model.onnx", tmp_path / "out"
    onnx_model(model, np.float16)
    to = ["quantize", model, out, "--to", "onnx", "--group-size", 32]
    assert "--scale-dtype float16" in failed(*to, "--scale-dtype", "float32")
    assert "zero_point integer or symmetric" in failed(*to, "--zero-point", "float")
    to = ["quantize", llama, out, "--to", "compressed-tensors", "--zero-point", "integer"]
    for option in (["--bits-per-weight", 5], ["--quality-floor", 0.99]):
        assert "--zero-point symmetric" in failed(*to, *option, code=2)
    for text in ("{", "[]"):
        (llama / "config.json").write_text(text)
        assert "config.json" in failed("quantize", llama, out, "--to", "mlx")
    monkeypatch.undo()
    assert "too long" in failed("quantize", model, tmp_path / ("x" * 230), "--to", "gguf")


def test_a_budget_counts_what_has_not_failed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal((64, 128), np.float32) for name in ("a", "b", "bad")}
    tensors["bad"][0, 0] = np.nan
    source, out = tmp_path / "m.safetensors", tmp_path / "o.parquet"
    save_file(tensors, source)
    options = ["--bits-per-weight", 4.2, "--continue-on-error", "--json"]
    succeeded("quantize", source, out, *options)
    bits = {name: row["bit_width"] for name, row in by_name(read(out)).items()}
    assert sum(bits.values()) <= 8
