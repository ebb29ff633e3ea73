"""Results and models that compressed-tensors cannot hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import attempt, plain
from exports import failing_stream, files, weights

from formats.packed_models import CONFIG, LINEAR, ONLY_LINEAR, arrays, results_of, saved
from pyarrowquant import Recipe, Rule, quantize_batch_arrow
from pyarrowquant.formats import write_compressed_tensors


def holds(dtype: str = "float32") -> str:
    return (
        "compressed-tensors holds matrices of the model, named '<module>.weight', of 2, 3, 4, 5, 6 "
        "or 8 bits with group_size -1 or one that divides the columns, zero_point integer or "
        "symmetric, or of encoding fp8 with group_size -1, 'tensor' or 'block', mxfp8, mxfp4 or "
        f"nvfp4. Scales but of the last three are of the model's dtype, {dtype}. Quantize such "
        "layers with other settings, or leave them out of the results: the model's own are kept"
    )


EMBEDDING = (
    "by its name it is an embedding, a norm or a router, which transformers does not load packed: "
    'quantize with recipe="text", which leaves such layers out'
)


@pytest.mark.parametrize(
    ("name", "shape", "options", "problem"),
    [
        ("m.up", (4, 64), {}, "its name does not end with '.weight'"),
        ("m.embed_tokens.weight", (4, 64), {}, EMBEDDING),
        ("bert.embeddings.word_embeddings.weight", (4, 64), {}, EMBEDDING),
        ("transformer.wte.weight", (4, 64), {}, EMBEDDING),
        ("transformer.wpe.weight", (4, 64), {}, EMBEDDING),
        ("shared.weight", (4, 64), {}, EMBEDDING),
        ("m.layers.0.mlp.gate.weight", (4, 64), {}, EMBEDDING),
        ("m.conv.weight", (4, 2, 64), {}, "shape [4, 2, 64] is not that of a matrix"),
        ("m.up.weight", (4, 96), {"group_size": 64}, "96 columns are no multiple of group_size 64"),
        (
            "m.up.weight",
            (4, 64),
            {"zero_point": "float"},
            'its zero-points are not integers: quantize with zero_point="symmetric"',
        ),
    ],
)
def test_refusals(
    tmp_path: Path, name: str, shape: tuple[int, ...], options: dict[str, Any], problem: str
) -> None:
    tensors = {"m.good.weight": weights(1, 4, 64), name: weights(2, 4, 512).reshape(-1)}
    tensors[name] = tensors[name][: np.prod(shape)].reshape(shape)
    model = saved(tmp_path / "model", tensors)
    results = pa.concat_tables(
        [
            quantize_batch_arrow(plain([layer], [tensors[layer]]), **{"group_size": 32, **more})
            for layer, more in (("m.good.weight", {}), (name, options))
        ]
    )
    before = files(tmp_path)
    for source in (results, failing_stream(results, AssertionError("is not reached"))):
        with pytest.raises(ValueError, match="compressed-tensors cannot hold") as caught:
            write_compressed_tensors(source, tmp_path / "out", model=model)
        text = f"compressed-tensors cannot hold layer '{name}': {problem}\n{holds()}"
        assert str(caught.value) == text
        assert files(tmp_path) == before


def test_layers_that_the_model_does_not_have(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    table = plain(["no.weight", LINEAR[0]], [weights(1, 4, 64), weights(1, 3, 64)])
    results = quantize_batch_arrow(table, group_size=32)
    with pytest.raises(ValueError, match="cannot hold layer") as caught:
        write_compressed_tensors(results, tmp_path / "out", model=model)
    assert str(caught.value).splitlines() == [
        f"compressed-tensors cannot hold layer '{LINEAR[0]}': shape [3, 64], in the model "
        f"'{model}' it is [5, 64]",
        f"compressed-tensors cannot hold layer 'no.weight': the model '{model}' has no tensor of "
        "this name",
        holds(),
    ]
    assert os.listdir(tmp_path) == ["model"]


def test_wrong_scales_are_all_named(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays(), {**CONFIG, "dtype": "bfloat16"})
    with pytest.raises(ValueError, match="its scales are not bfloat16") as caught:
        write_compressed_tensors(results_of(model, group_size=32), tmp_path / "out", model=model)
    named = ", ".join(f"'{name}'" for name in LINEAR)
    assert f"layers {named}: its scales are not bfloat16: quantize with" in str(caught.value)
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            {"quantization_config": {}},
            "already: its config.json has quantization_config",
        ),
        ({"text_config": {"quantization_config": {}}}, "has text_config.quantization_config. Give"),
        ({"model_type": "gpt2"}, "has model_type 'gpt2', whose layers are Conv1D"),
        ({"dtype": "float64"}, "says that the model's dtype is 'float64'. It must be 'float32'"),
    ],
)
def test_models_that_are_refused(tmp_path: Path, config: dict[str, Any], text: str) -> None:
    model = saved(tmp_path / "model", arrays(), config)
    with pytest.raises(ValueError, match=text):
        write_compressed_tensors(results_of(model, group_size=32), tmp_path / "out", model=model)
    assert os.listdir(tmp_path) == ["model"]


def test_damaged_and_missing_models(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)

    def fails(kind: type[Exception], text: str, path: Path = model) -> None:
        with pytest.raises(kind, match=text):
            write_compressed_tensors(results, tmp_path / "out", model=path)
        assert os.listdir(tmp_path) == ["model"]

    fails(FileNotFoundError, "No such folder: .*no'. Give the folder", tmp_path / "no")
    fails(NotADirectoryError, "is a file. Give the folder", model / "config.json")
    for text in ("{", "[1]", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        (model / "config.json").write_bytes(text.encode("latin-1"))
        fails(ValueError, "config.json' (is not valid JSON|must be a JSON object)")
    (model / "config.json").unlink()
    fails(FileNotFoundError, "has no config.json. Give the folder of a Hugging Face model")
    (model / "config.json").write_text("{}")
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-1])
    fails(ValueError, "Is the file complete")
    (model / "model.safetensors").unlink()
    fails(ValueError, "has no model")


def test_wrong_results(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)
    twice = pa.concat_tables([results, results.slice(0, 1)])
    for source in (twice, twice.to_reader(max_chunksize=1)):
        with pytest.raises(ValueError, match=f"Layer '{LINEAR[0]}' is in the results twice"):
            write_compressed_tensors(source, tmp_path / "out", model=model)
    for source in (results.slice(0, 0), results.slice(0, 0).to_reader()):
        with pytest.raises(ValueError, match="The results have no layers"):
            write_compressed_tensors(source, tmp_path / "out", model=model)
    with pytest.raises(ValueError, match="Column 'quantized_data' is missing"):
        write_compressed_tensors(plain(["a"], [[1.0]]), tmp_path / "out", model=model)
    with pytest.raises(TypeError, match="Expected an Arrow table"):
        write_compressed_tensors({"a": 1}, tmp_path / "out", model=model)
    with pytest.raises(TypeError, match="overwrite must be True or False"):
        write_compressed_tensors(results, tmp_path / "out", model=model, overwrite=1)  # type: ignore[arg-type]
    field = results.schema.field("scales")
    bad = results.slice(0, 1).set_column(2, field, pa.array([[1.0, 0.0] * 5], field.type))
    with pytest.raises(ValueError, match="is corrupt: a scale is 0"):
        write_compressed_tensors(bad, tmp_path / "out", model=model)
    assert os.listdir(tmp_path) == ["model"]


def test_names_come_once(tmp_path: Path) -> None:
    tensors = {**arrays(), f"{LINEAR[0]}_scale": np.zeros(1, np.float32)}
    model = saved(tmp_path / "model", tensors)
    recipe = Recipe([Rule("*_scale", skip=True), *ONLY_LINEAR.rules])
    with pytest.raises(ValueError, match=f"Two tensors of the file would be named '{LINEAR[0]}_sc"):
        write_compressed_tensors(
            results_of(model, recipe, group_size=32), tmp_path / "out", model=model
        )
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("type_", "position", "value"),
    [
        (pa.binary(), 1, -(2**20)),
        (pa.binary(), 2, 2**30),
        (pa.large_binary(), 1, 2**50),
        (pa.binary_view(), 4, -1),  # the second value's size, buffer and offset
        (pa.binary_view(), 6, 1),
        (pa.binary_view(), 7, 2**30),
        (pa.binary_view(), 7, -1),
    ],
)
def test_hostile_offsets(tmp_path: Path, type_: pa.DataType, position: int, value: int) -> None:
    """Those within a column are checked by nobody else."""
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)
    column = results["quantized_data"].combine_chunks().cast(type_)
    buffers = column.buffers()
    values = np.frombuffer(buffers[1], np.int64 if type_ == pa.large_binary() else np.int32).copy()
    values[position] = value
    buffers[1] = pa.py_buffer(values)
    hostile = pa.Array.from_buffers(type_, len(column), buffers)
    results = results.set_column(1, "quantized_data", hostile)
    # caught by hand: pytest would show the table, and die of it
    error = attempt(write_compressed_tensors, results, tmp_path / "out", model=model)
    assert str(error).startswith("Column 'quantized_data' is corrupt: ")
    assert os.listdir(tmp_path) == ["model"]
