"""Files of importance as `calibrate` writes them: what is read, used and refused."""

from __future__ import annotations

import json
from pathlib import Path

import hf_folders
import numpy as np
import pyarrow as pa
import pytest
from commands import failed, run, succeeded
from safetensors.numpy import save_file

import pyarrowquant

SAID = {"pyarrowquant.importance": json.dumps({"format_version": 1, "texts": [], "tokens": 9})}
RANDOM = np.random.default_rng(5)


def importance_file(path: Path, values: dict[str, np.ndarray], said: object = SAID) -> Path:
    counts = {f"{name}.count": np.array([9]) for name in values}
    save_file({**values, **counts}, path, metadata=said)
    return path


def folder_of(path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder of a Llama, and an importance of each of its matrices."""
    tensors = hf_folders.llama()
    folder = hf_folders.write(path / "model", tensors)
    values = {
        name: RANDOM.exponential(size=tensor.shape[1]).astype(np.float32)
        for name, tensor in tensors.items()
        if tensor.ndim == 2
    }
    return folder, values


def test_values_are_read_by_the_names_of_the_folder(tmp_path: Path) -> None:
    _, values = folder_of(tmp_path)
    file = importance_file(tmp_path / "i.safetensors", values)
    found = pyarrowquant.read_importance(file)
    assert dict(zip(*found.to_pydict().values(), strict=True)) == {
        name: array.tolist() for name, array in sorted(values.items())
    }


@pytest.mark.parametrize("target", ["out.gguf", "out.parquet"])
def test_it_weighs_errors_under_the_names_of_either_side(tmp_path: Path, target: str) -> None:
    """The error that importance weighs is less with it than without."""
    folder, values = folder_of(tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    values = {name: values[name] ** 3}
    file = importance_file(tmp_path / "i.safetensors", values)
    out, plain = tmp_path / target, tmp_path / f"plain-{target}"
    options = ("--encoding", "q4_k")
    told = run("quantize", folder, out, *options, "--importance", file)
    assert told.exit_code == 0, told.output
    assert "Without importance in 'i.safetensors'" in told.stderr
    succeeded("quantize", folder, plain, *options)
    wanted = hf_folders.llama()[name]

    def weighted_error(path: Path) -> float:
        called = "blk.0.ffn_up.weight" if path.suffix == ".gguf" else name
        decoded = {
            layer["layer_name"]: layer["weights"]
            for batch in pyarrowquant.read_weights(path)
            for layer in batch.to_pylist()
        }[called]
        error = np.frombuffer(decoded, "<f4") if isinstance(decoded, bytes) else np.array(decoded)
        return float((values[name] * (error.reshape(wanted.shape) - wanted) ** 2).sum())

    assert weighted_error(out) < 0.9 * weighted_error(plain)


@pytest.mark.parametrize(
    ("values", "said", "words"),
    [
        ({"a.weight": np.ones(4, np.float32)}, {}, "is no file of importance"),
        (
            {"a.weight": np.ones(4, np.float32)},
            {"pyarrowquant.importance": '{"format_version": 2}'},
            "format_version 2, and this version of pyarrowquant knows 1",
        ),
        (
            {"a.weight": np.ones(4, np.float32)},
            {"pyarrowquant.importance": '{"format_version": true}'},
            "format_version True, which no version of pyarrowquant writes",
        ),
        (
            {"a.weight": np.ones(4, np.float32)},
            {"pyarrowquant.importance": "[" * 5000 + "]" * 5000},
            "is no file of importance",
        ),
        ({"a.weight": np.ones((2, 2), np.float32)}, SAID, "shape [2, 2]"),
        ({"a.weight": np.ones(4, np.float16)}, SAID, "is F16"),
        ({"a.weight": np.array([1, np.nan], np.float32)}, SAID, "nan at index 1"),
        ({"a.weight": np.array([1, -1], np.float32)}, SAID, "-1.0 at index 1"),
        ({}, SAID, "of no layer"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, values: dict[str, np.ndarray], said: dict[str, str], words: str
) -> None:
    file = importance_file(tmp_path / "i.safetensors", values, said)
    with pytest.raises(ValueError, match=r"i\.safetensors") as error:
        pyarrowquant.read_importance(file)
    assert words in str(error.value)


@pytest.mark.parametrize("texts", [None, 5, "a", {"a": 1}, [None, {"name": [1]}]])
def test_odd_names_of_texts_do_no_harm(tmp_path: Path, texts: object) -> None:
    said = {"pyarrowquant.importance": json.dumps({"format_version": 1, "texts": texts})}
    file = importance_file(tmp_path / "i.safetensors", {"a.weight": np.ones(4, "f4")}, said)
    assert pyarrowquant.read_importance(file).num_rows == 1


def test_importance_of_another_model_is_refused(tmp_path: Path) -> None:
    folder, values = folder_of(tmp_path)
    other = importance_file(tmp_path / "other.safetensors", {"h.0.x.weight": np.ones(8, "f4")})
    said = failed("quantize", folder, tmp_path / "out.gguf", "--importance", other)
    assert "another model" in said
    name = "model.layers.0.mlp.up_proj.weight"
    short = importance_file(tmp_path / "short.safetensors", {name: values[name][1:]})
    said = failed("quantize", folder, tmp_path / "out.gguf", "--importance", short)
    assert "255 values" in said
    assert "256 columns" in said


@pytest.mark.parametrize("inner", [64, 32])
def test_stacks_whose_rows_are_inputs_do_without(tmp_path: Path, inner: int) -> None:
    """As those of gpt-oss in checkpoints of floats, also where they are square."""
    stack, other = "model.layers.0.mlp.experts.down_proj", "model.layers.0.self_attn.q_proj.weight"
    tensors = hf_folders.weights({stack: (2, inner, 32), other: (64, 32)})
    folder = hf_folders.write(
        tmp_path / "model",
        tensors,
        architectures=["GptOssForCausalLM"],
        hidden_size=32,
        num_hidden_layers=1,
    )
    values = {
        stack: RANDOM.exponential(size=2 * inner).astype(np.float32),
        other: RANDOM.exponential(size=32).astype(np.float32),
    }
    counts = {f"{stack}.count": np.array([9, 9]), f"{other}.count": np.array([9])}
    file = tmp_path / "i.safetensors"
    save_file({**values, **counts}, file, metadata=SAID)
    told = run("quantize", folder, tmp_path / "out.parquet", "--importance", file)
    assert told.exit_code == 0, told.output
    assert f"so quantized as without a file: {stack}\n" in told.stderr


def test_a_file_of_what_is_not_quantized_is_said_to_be_such(tmp_path: Path) -> None:
    folder, values = folder_of(tmp_path)
    head = {"lm_head.weight": values["lm_head.weight"]}
    file = importance_file(tmp_path / "i.safetensors", head)
    command = ["quantize", folder, tmp_path / "out.parquet", "--recipe", "text"]
    error = failed(*command, "--importance", file)
    assert "has the importance of 1 layer, such as 'lm_head.weight', and of none that" in error
    assert f"is quantized of '{folder}'. Leave it out" in error


def test_recipe_fit_weighs_errors_by_a_file(tmp_path: Path) -> None:
    """As Recipe.fit does by the column of a table."""
    folder, values = folder_of(tmp_path)
    values = {name: array**6 for name, array in values.items() if "embed" not in name}
    file = importance_file(tmp_path / "i.safetensors", values)
    budget = ("--bits-per-weight", 4.25, "--recipe", "text")
    with_file, without = tmp_path / "with.json", tmp_path / "without.json"
    succeeded("recipe", "fit", folder, with_file, *budget, "--importance", file)
    succeeded("recipe", "fit", folder, without, *budget)
    tensors = {name: tensor for name, tensor in hf_folders.llama().items() if tensor.ndim == 2}
    table = pyarrowquant.numpy_to_arrow_table(tensors)
    lists = pa.array([values.get(name) for name in tensors], pa.list_(pa.float32()))
    fitted = pyarrowquant.Recipe.fit(
        table.append_column("importance", lists), 4.25, recipe=pyarrowquant.Recipe.preset("text")
    )

    def bits(recipe: pyarrowquant.Recipe) -> dict[str, object]:
        return {name: recipe.settings_of(name, each.shape) for name, each in tensors.items()}

    assert bits(pyarrowquant.Recipe.load(with_file)) == bits(fitted)
    assert bits(pyarrowquant.Recipe.load(with_file)) != bits(pyarrowquant.Recipe.load(without))
    other = importance_file(tmp_path / "other.safetensors", {"a": values["lm_head.weight"]})
    error = failed("recipe", "fit", folder, tmp_path / "x.json", *budget, "--importance", other)
    assert "It is of another model" in error


def test_what_cannot_be_calibrated_is_said_before_torch_is_needed(tmp_path: Path) -> None:
    folder, _ = folder_of(tmp_path)
    out = tmp_path / "i.safetensors"
    empty, short = tmp_path / "empty.txt", tmp_path / "short.txt"
    empty.write_text(" \n")
    short.write_bytes(b"\xff\xfe")
    config = folder / "config.json"
    for arguments, words, code in (
        ((folder, empty), f"'{empty}', the file to write, must end with .safetensors", 2),
        ((folder, "s3://bucket/i.safetensors"), "Only quantize writes to URIs", 2),
        ((folder, tmp_path / "no.txt", out), "no.txt", 1),
        ((folder, empty, out), "has no text", 1),
        ((folder, short, out), "the text is not UTF-8: byte 0 is 0xff. Save it as UTF-8", 1),
        ((folder / "model.safetensors", out), "no Hugging Face folder", 1),
    ):
        assert words in failed("calibrate", *arguments, code=code)
    config.write_text(json.dumps({"hidden_size": 8}))
    assert "architectures" in failed("calibrate", folder, out)
    out.touch()
    assert "--overwrite" in failed("calibrate", folder, out)


def test_what_is_read_is_never_replaced(tmp_path: Path) -> None:
    folder, _ = folder_of(tmp_path)
    weights = folder / "model.safetensors"
    text = tmp_path / "text.safetensors"
    text.write_text("a text " * 400)
    for destination in (weights, text):
        before = destination.read_bytes()
        error = failed("calibrate", folder, text, destination, "--overwrite")
        assert f"'{destination}' is the source, or a file of it" in error
        assert destination.read_bytes() == before
