"""Folders for transformers: bytes decoded by numpy, the rest of the model as it was."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from conftest import OnlyStream, attempt, plain
from exports import decoded, failing_stream, files, weights
from models import write_shards, write_table
from safetensors import safe_open
from safetensors.numpy import save_file

import pyarrowquant
from pyarrowquant import Recipe, Rule, quantize_batch_arrow, quantize_stream, read_weights
from pyarrowquant.formats import write_compressed_tensors
from pyarrowquant.reading.location import MappedFile

NUMPY = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
ONLY_LINEAR = Recipe([Rule(["*embed*", "*norm*", "*.bias", "lm_head*", "ids*"], skip=True)])
LINEAR = ["model.layers.0.up.weight", "model.layers.1.down.weight", "model.layers.1.up.weight"]
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
Arrays = dict[str, np.ndarray]


def arrays(dtype: Any = np.float32, rows: int = 5, columns: int = 64) -> Arrays:
    """A model of three linear layers, an embedding, and kept tensors of several dtypes."""
    linear = {name: weights(i, rows, columns) for i, name in enumerate(LINEAR)}
    return {
        "model.embed_tokens.weight": weights(7, 6, 8).astype(dtype),
        **{name: array.astype(dtype) for name, array in linear.items()},
        "model.layers.0.up.bias": weights(8, 1, rows)[0].astype(dtype),
        "model.norm.weight": np.arange(3, dtype=np.float32),
        "ids": np.arange(3, dtype=np.int64),
        "flags": np.array([True, False, True]),
        "double": np.array([1 / 3], np.float64),
        "small": np.arange(5).astype(ml_dtypes.float8_e4m3fn),
    }


def saved(folder: Path, tensors: Arrays, config: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    floats = {name: array for name, array in tensors.items() if array.dtype.name[:6] != "float8"}
    save_file(floats, folder / "model.safetensors")
    if len(floats) < len(tensors):
        rewrite_with_bytes(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    return folder


def rewrite_with_bytes(path: Path, tensors: Arrays) -> None:
    """Write a file with tensors that safetensors.numpy does not know."""
    codes = {
        "float8_e4m3fn": "F8_E4M3", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
        "int64": "I64", "bool": "BOOL", "float64": "F64",
    }  # fmt: skip
    header, data = {}, b""
    for name, array in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        header[name] = {
            "dtype": codes[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def results_of(model: Path, recipe: Recipe = ONLY_LINEAR, **options: Any) -> pa.Table:
    return quantize_batch_arrow(read_weights(model), recipe=recipe, **options)


def read_file(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Dtype, shape and bytes of each tensor; checks the file as safetensors does."""
    with safe_open(path, "np") as file:
        names = set(file.keys())
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert header.pop("__metadata__", {"format": "pt"}) == {"format": "pt"}
    assert header.keys() == names
    data = raw[8 + size :]
    return {
        name: (said["dtype"], said["shape"], data[slice(*said["data_offsets"])])
        for name, said in header.items()
    }


def read_model(folder: Path) -> dict[str, tuple[str, list[int], bytes]]:
    tensors: dict[str, tuple[str, list[int], bytes]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= read_file(path)
    return tensors


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def unpacked(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Codes of rows of int32 words, by the format's definition: one stream of bits a row."""
    rows = words.astype("<i4").view(np.uint8).reshape(len(words), -1)
    stream = np.unpackbits(rows, axis=1, bitorder="little")[:, : count * bits]
    return stream.reshape(len(words), count, bits) @ (1 << np.arange(bits))


def decode(tensors: dict[str, tuple[str, list[int], bytes]], name: str, bits: int) -> np.ndarray:
    """Weights of a packed layer, in float32."""
    dtype, shape, data = tensors[f"{name}_packed"]
    assert dtype == "I32"
    words = np.frombuffer(data, "<i4").reshape(shape)
    dtype, shape, data = tensors[f"{name}_shape"]
    assert (dtype, shape) == ("I64", [2])
    rows, columns = np.frombuffer(data, "<i8")
    assert words.shape == (rows, -(-columns * bits // 32))
    dtype, shape, data = tensors[f"{name}_scale"]
    scales = np.frombuffer(data, NUMPY[dtype]).astype(np.float32).reshape(shape)
    zeros = np.full(scales.shape, 2 ** (bits - 1))
    if f"{name}_zero_point" in tensors:
        dtype, shape, data = tensors[f"{name}_zero_point"]
        assert (dtype, shape) == ("I32", [-(-rows * bits // 32), scales.shape[1]])
        down = np.ascontiguousarray(np.frombuffer(data, "<i4").reshape(shape).T)
        zeros = unpacked(down, bits, rows).T
    group = columns // scales.shape[1]
    codes = unpacked(words, bits, columns)
    shifted = (codes - np.repeat(zeros, group, 1)).astype(np.float32)
    return shifted * np.repeat(scales, group, 1)


def assert_decodes(folder: Path, results: pa.Table) -> None:
    tensors = read_model(folder)
    bits = dict(
        zip(*(results[name].to_pylist() for name in ("layer_name", "bit_width")), strict=True)
    )
    for name, values in decoded(results).items():
        np.testing.assert_array_equal(decode(tensors, name, bits[name]), values)
        assert name not in tensors


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("zero_point", ["integer", "symmetric"])
@pytest.mark.parametrize("group", [8, 32, -1])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_decodes_to_the_same_values(
    tmp_path: Path, bits: int, group: int, zero_point: str, dtype: str
) -> None:
    """Columns and rows whose codes fill no whole words, in all widths."""
    config = {**CONFIG, "dtype": dtype}
    model = saved(tmp_path / "model", arrays(DTYPES[dtype], rows=7, columns=96), config)
    before = files(model)
    results = results_of(
        model, bit_width=bits, group_size=group, zero_point=zero_point, scale_dtype=dtype
    )
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert_decodes(tmp_path / "out", results)
    assert config_of(tmp_path / "out")["config_groups"] == {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": bits,
                "type": "int",
                "symmetric": zero_point == "symmetric",
                "strategy": "channel" if group == -1 else "group",
                "group_size": None if group == -1 else group,
            },
        }
    }
    assert ("dequantize" in config_of(tmp_path / "out")) == (zero_point == "integer")
    names = {name for name in read_model(tmp_path / "out") if "zero_point" in name}
    assert len(names) == (3 if zero_point == "integer" else 0)
    assert files(model) == before


def test_rows_and_zero_points_of_many_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyarrowquant.formats.compressed_tensors._BYTES_A_PIECE", 100)
    monkeypatch.setattr("pyarrowquant.formats._model_folder._PIECE", 7)
    tensors = arrays(rows=33, columns=120)
    model = saved(tmp_path / "model", tensors)
    results = results_of(model, bit_width=3, group_size=8)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert_decodes(tmp_path / "out", results)
    assert_kept(tmp_path / "out", tensors)


def assert_kept(folder: Path, tensors: Arrays) -> None:
    written = read_model(folder)
    for name in tensors.keys() - set(LINEAR):
        assert written[name][1] == list(tensors[name].shape)
        assert written[name][2] == tensors[name].tobytes()


def test_kept_tensors_are_the_same_bytes_and_dtype(tmp_path: Path) -> None:
    tensors = arrays()
    model = saved(tmp_path / "model", tensors)
    write_compressed_tensors(results_of(model, group_size=32), tmp_path / "out", model=model)
    assert_kept(tmp_path / "out", tensors)
    kept = tensors.keys() - set(LINEAR)
    source, written = read_model(model), read_model(tmp_path / "out")
    assert {name: written[name][:2] for name in kept} == {name: source[name][:2] for name in kept}
    assert written.keys() - kept == {
        f"{name}_{part}" for name in LINEAR for part in ("packed", "scale", "shape", "zero_point")
    }


def test_tensors_are_aligned(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays(np.float16), {**CONFIG, "dtype": "float16"})
    results = results_of(model, bit_width=3, group_size=8, scale_dtype="float16")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    raw = (tmp_path / "out" / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert size % 8 == 0
    sizes = {"I64": 8, "F64": 8, "I32": 4, "F32": 4, "F16": 2, "BOOL": 1, "F8_E4M3": 1}
    for name, said in header.items():
        if name != "__metadata__":
            assert said["data_offsets"][0] % sizes[said["dtype"]] == 0


def test_config_is_the_source_s_with_more(tmp_path: Path) -> None:
    config = {**CONFIG, "été": 1.5, "limits": [0.0, float("inf")], "big": 2**70}
    model = saved(tmp_path / "model", arrays(), config)
    results = results_of(model, group_size=32, zero_point="symmetric")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written.pop("quantization_config") == {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["model.embed_tokens", "lm_head"],
        "config_groups": config_of(tmp_path / "out")["config_groups"],
    }
    assert written == config


def test_what_is_not_packed_is_ignored(tmp_path: Path) -> None:
    tensors = {
        **arrays(),
        "lm_head.weight": weights(1, 6, 64),
        "model.layers.0.gate.weight": weights(1, 2, 64),
        "model.layers.1.gate.weight": weights(1, 2, 64),
    }
    model = saved(tmp_path / "model", tensors)
    recipe = Recipe([Rule("*.gate.*", skip=True), Rule("*.1.up.*", skip=True), *ONLY_LINEAR.rules])
    results = results_of(model, recipe, group_size=32)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    ignored = config_of(tmp_path / "out")["ignore"]
    exact = [entry for entry in ignored if not entry.startswith("re:")]
    assert sorted(exact) == [
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.gate",
        "model.layers.1.gate",
        "model.layers.1.up",
    ]
    gates, pattern = (entry.removeprefix("re:") for entry in ignored if entry.startswith("re:"))
    assert all(re.match(gates, f"layers.{i}.gate") for i in (0, 1))
    for name in ("model.layers.1.up", "layers.1.up", "x.model.layers.1.up"):
        assert re.match(pattern, name)
    for name in ("model.layers.0.up", "model.layers.1.up.x", "model.layers.11.up", "y.layers.1.up"):
        assert not re.match(pattern, name)
    # a packed head is not ignored
    results = results_of(
        model, Recipe([Rule(["*embed*", "*gate*", "*norm*", "*.bias"], skip=True)]), group_size=32
    )
    write_compressed_tensors(results, tmp_path / "head", model=model)
    assert "lm_head" not in config_of(tmp_path / "head")["ignore"]


def test_names_that_differ_in_their_first_part_only(tmp_path: Path) -> None:
    """An expression that allows another first part would ignore the packed one."""
    tensors = {f"{part}.block.0.q.weight": weights(1, 4, 64) for part in ("encoder", "decoder")}
    model = saved(tmp_path / "model", tensors)
    results = results_of(model, Recipe([Rule("encoder.*", skip=True)]), group_size=32)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    patterns = config_of(tmp_path / "out")["ignore"]
    assert "encoder.block.0.q" in patterns
    for entry in patterns:
        assert not re.match(entry.removeprefix("re:"), "decoder.block.0.q")


@pytest.mark.parametrize(
    ("tensor", "head"),
    [
        ("cls.predictions.transform.dense.weight", "cls.predictions.decoder"),
        ("lm_head.dense.weight", "lm_head.decoder"),
        ("vocab_projector.bias", "vocab_projector"),
    ],
)
def test_tied_heads_of_encoders(tmp_path: Path, tensor: str, head: str) -> None:
    tensors = {**arrays(), tensor: weights(1, 4, 64) if "weight" in tensor else weights(1, 1, 4)[0]}
    model = saved(tmp_path / "model", tensors)
    recipe = Recipe([Rule(["cls*", "lm*", "vocab*"], skip=True), *ONLY_LINEAR.rules])
    write_compressed_tensors(
        results_of(model, recipe, group_size=32), tmp_path / "out", model=model
    )
    assert head in config_of(tmp_path / "out")["ignore"]


@pytest.mark.parametrize("bits", [4, 8])
def test_mixed_settings_have_a_group_each(tmp_path: Path, bits: int) -> None:
    model = saved(tmp_path / "model", arrays())
    recipe = Recipe([Rule("*down*", bit_width=bits, group_size=-1), *ONLY_LINEAR.rules])
    results = results_of(model, recipe, group_size=32, zero_point="symmetric")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert_decodes(tmp_path / "out", results)
    config = config_of(tmp_path / "out")
    assert "dequantize" not in config
    groups = list(config["config_groups"].values())
    found = {}
    for group in groups:
        matched = [
            name.removesuffix(".weight")
            for name in arrays()
            for target in group["targets"]
            if re.match(target.removeprefix("re:"), name.removesuffix(".weight"))
        ]
        found[group["weights"]["num_bits"], group["weights"]["group_size"]] = matched
    assert found == {
        (4, 32): ["model.layers.0.up", "model.layers.1.up"],
        (bits, None): ["model.layers.1.down"],
    }


def test_modules_that_differ_in_numbers_share_a_target(tmp_path: Path) -> None:
    """Here 4 bits: 2 * 3 experts; 8 bits: some of the others, not in all combinations."""
    names = [
        f"m.layers.{i}.{part}.{j}.up.weight" for i in (0, 1, 10) for part in "ab" for j in range(3)
    ]
    model = saved(tmp_path / "model", {name: weights(1, 2, 32) for name in names})
    eight = ["m.layers.0.b.*", "m.layers.1.b.2.*", "m.layers.10.a.*"]
    recipe = Recipe([Rule(eight, bit_width=8)])
    results = results_of(model, recipe, group_size=32, zero_point="symmetric")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    groups = config_of(tmp_path / "out")["config_groups"].values()
    assert [len(group["targets"]) for group in groups] == [4, 4]
    bits = dict(
        zip(results["layer_name"].to_pylist(), results["bit_width"].to_pylist(), strict=True)
    )
    for name in names:
        module = name.removesuffix(".weight")
        found = [
            group["weights"]["num_bits"]
            for group in groups
            for target in group["targets"]
            if re.match(target.removeprefix("re:"), module)
        ]
        assert found == [bits[name]]


def test_mixed_settings_need_symmetric_zero_points(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    recipe = Recipe([Rule("*down*", bit_width=8), *ONLY_LINEAR.rules])
    results = results_of(model, recipe, group_size=32)
    with pytest.raises(ValueError, match="of different settings only with symmetric") as caught:
        write_compressed_tensors(results, tmp_path / "out", model=model)
    assert str(caught.value) == (
        "transformers loads layers of different settings only with symmetric zero-points, and the "
        "results have 4 bits in groups of 32 ('model.layers.0.up.weight', "
        "'model.layers.1.up.weight'); 8 bits in groups of 32 ('model.layers.1.down.weight'). "
        'Quantize all of them with zero_point="symmetric", or with the same bit_width and '
        "group_size"
    )
    assert os.listdir(tmp_path) == ["model"]


def test_mixed_settings_need_names_as_in_the_files(tmp_path: Path) -> None:
    config = {**CONFIG, "text_config": {"dtype": "float32"}}
    model = saved(tmp_path / "model", arrays(), config)
    recipe = Recipe([Rule("*down*", bit_width=8), *ONLY_LINEAR.rules])
    results = results_of(model, recipe, group_size=32, zero_point="symmetric")
    with pytest.raises(ValueError, match=r"models that have text_config .* other names"):
        write_compressed_tensors(results, tmp_path / "out", model=model)


def test_one_layer_that_is_not_symmetric_makes_all_asymmetric(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    symmetric = results_of(model, group_size=32, zero_point="symmetric")
    integer = results_of(model, group_size=32)
    results = pa.concat_tables([symmetric.slice(0, 2), integer.slice(2)])
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert_decodes(tmp_path / "out", results)
    assert config_of(tmp_path / "out")["dequantize"] is True


def test_models_other_than_decoders_are_decoded_while_loading(tmp_path: Path) -> None:
    config = {**CONFIG, "architectures": ["BertModel"]}
    model = saved(tmp_path / "model", arrays(), config)
    results = results_of(model, group_size=32, zero_point="symmetric")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert config_of(tmp_path / "out")["dequantize"] is True


def experts() -> Arrays:
    names = [f"model.layers.{i}.mlp.experts.{j}.up.weight" for i in (0, 1) for j in (0, 1)]
    shared = "model.layers.0.mlp.shared_experts.up.weight"
    return {name: weights(i, 4, 64) for i, name in enumerate([*names, shared, *LINEAR])}


def test_experts_are_packed_alike(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", experts())
    options = {"group_size": 32, "zero_point": "symmetric"}
    recipe = Recipe([Rule("*.experts.*", bit_width=8)])
    write_compressed_tensors(results_of(model, recipe, **options), tmp_path / "out", model=model)
    groups = config_of(tmp_path / "out")["config_groups"]
    assert groups["group_0"]["weights"]["num_bits"] == 8  # the first with experts in its targets
    for rule, text in (
        (
            Rule("*1.mlp.experts.0*", skip=True),
            "these are not in the results: 'model.layers.1.mlp.",
        ),
        (Rule("*1.mlp.experts.0*", bit_width=8), "the results have 4 bits in groups of 32 \\("),
    ):
        results = results_of(model, Recipe([rule]), **options)
        with pytest.raises(ValueError, match=f"loads experts only if all are packed.*{text}"):
            write_compressed_tensors(results, tmp_path / "no", model=model)
    with pytest.raises(ValueError, match="zero-points of the results are not symmetric"):
        write_compressed_tensors(
            results_of(model, Recipe([]), group_size=32), tmp_path / "no", model=model
        )


@pytest.fixture
def sharded(tmp_path: Path) -> tuple[Path, Arrays]:
    tensors = {name: array for name, array in arrays().items() if name != "small"}
    names = list(tensors)
    (tmp_path / "model").mkdir()
    model = write_shards(
        tmp_path / "model",
        {
            "model-00001-of-00002.safetensors": {name: tensors[name] for name in names[2:]},
            "model-00002-of-00002.safetensors": {name: tensors[name] for name in names[:2]},
        },
    )
    (model / "config.json").write_text(json.dumps(CONFIG))
    return model, tensors


def test_shards_keep_their_names(tmp_path: Path, sharded: tuple[Path, Arrays]) -> None:
    model, tensors = sharded
    results = results_of(model, group_size=32)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert_decodes(tmp_path / "out", results)
    assert_kept(tmp_path / "out", tensors)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    found = {}
    total = 0
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        for tensor, (_, _, data) in read_file(tmp_path / "out" / name).items():
            found[tensor] = name
            total += len(data)
    assert index == {"metadata": {"total_size": total}, "weight_map": found}
    assert found[f"{LINEAR[0]}_packed"] == "model-00002-of-00002.safetensors"
    reader = read_weights(tmp_path / "out", only_floats=False)
    assert {name for batch in reader for name in batch["layer_name"].to_pylist()} == found.keys()


def test_an_index_is_made_for_shards_without_one(
    tmp_path: Path, sharded: tuple[Path, Arrays]
) -> None:
    model, _ = sharded
    results = results_of(model, group_size=32)
    write_compressed_tensors(results, tmp_path / "with", model=model)
    (model / "model.safetensors.index.json").unlink()
    write_compressed_tensors(results, tmp_path / "without", model=model)
    assert files(tmp_path / "with") == files(tmp_path / "without")


def test_streams_and_tables_give_the_same_files(
    tmp_path: Path, sharded: tuple[Path, Arrays]
) -> None:
    model, _ = sharded
    options: dict[str, Any] = {"recipe": ONLY_LINEAR, "group_size": 32}
    results = quantize_batch_arrow(read_weights(model), **options)
    write_compressed_tensors(results, tmp_path / "table", model=model)
    expected = files(tmp_path / "table")
    write_table(results, tmp_path / "mapped.arrow")
    named = results["layer_name"].dictionary_encode()
    sources = {
        "stream": quantize_stream(read_weights(model, batch_bytes=100), **options),
        "capsule": OnlyStream(results),
        "backwards": results.take([2, 0, 1]),
        "mapped": pa.ipc.open_file(pa.memory_map(str(tmp_path / "mapped.arrow"))).read_all(),
        "views": OnlyStream(results.cast(with_types(results, pa.binary_view(), pa.string_view()))),
        "large": results.cast(with_types(results, pa.large_binary(), pa.large_string())),
        "dictionary": OnlyStream(results.set_column(0, "layer_name", named)),
        "metrics": quantize_batch_arrow(read_weights(model), metrics=True, **options),
    }
    for name, source in sources.items():
        write_compressed_tensors(source, tmp_path / name, model=model)
        assert files(tmp_path / name) == expected, name


def with_types(results: pa.Table, binary: pa.DataType, text: pa.DataType) -> pa.Schema:
    types = {"quantized_data": binary, "layer_name": text}
    return pa.schema([(f.name, types.get(f.name, f.type)) for f in results.schema])


def resident() -> int:
    """Bytes of this process in memory, mapped files included."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """48 MiB of codes and 96 MiB of kept weights, 4 MiB at a time."""
    layers = 24
    array = weights(1, 1024, 2048).astype(np.float16)
    tensors = {f"m.{i}.{part}.weight": array for i in range(layers) for part in ("embed", "up")}
    model = saved(tmp_path / "model", tensors, {**CONFIG, "dtype": "float16"})
    options = {"recipe": ONLY_LINEAR, "scale_dtype": "float16", "threads": 1}
    stream = quantize_stream(read_weights(model, batch_bytes=1), 8, **options)
    most = 0
    forget_pages = MappedFile.forget_pages

    def watched(file: MappedFile) -> None:
        nonlocal most
        most = max(most, resident())
        forget_pages(file)

    monkeypatch.setattr(MappedFile, "forget_pages", watched)
    pyarrowquant.release_memory()
    before = resident()
    write_compressed_tensors(stream, tmp_path / "out", model=model)
    assert 0 < most - before < 24 * 2**20
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 144 * 2**20


def test_other_files_are_copied_but_for_weights(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    copied = (
        "tokenizer.json", "tokenizer.model", "generation_config.json", "chat_template.jinja",
        "README.md", "LICENSE", "modeling_own.py", "vocab.txt",
    )  # fmt: skip
    left = (
        "pytorch_model.bin", "Model.GGUF", "consolidated.00.pth", "consolidated.safetensors",
        "model.onnx", "adapter.safetensors", "pytorch_model.bin.index.json", ".gitattributes",
        "tf_model.h5", "flax_model.msgpack", "model.safetensors.index.json",
    )  # fmt: skip
    for name in (*copied, *left):
        (model / name).write_text(name)
    for name in ("original", "1_Pooling", ".cache"):
        (model / name).mkdir()
        (model / name / "params.json").write_text(name)
    (model / "original" / "consolidated.00.pth").write_text("weights")
    (model / "linked.txt").symlink_to(model / "README.md")
    write_compressed_tensors(results_of(model, group_size=32), tmp_path / "out", model=model)
    written = files(tmp_path / "out")
    assert written.pop("1_Pooling") == b"folder"
    assert written.pop("1_Pooling/params.json") == b"1_Pooling"
    assert written.keys() == {*copied, "linked.txt", "config.json", "model.safetensors"}
    for name in copied:
        assert written[name] == name.encode()
    assert written["linked.txt"] == b"README.md"
    assert not (tmp_path / "out" / "linked.txt").is_symlink()
    again = results_of(model, group_size=64)
    write_compressed_tensors(again, tmp_path / "out", model=model, overwrite=True)
    (tmp_path / "out" / "1_Pooling" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="has the folder '1_Pooling', which would be lost"):
        write_compressed_tensors(again, tmp_path / "out", model=model, overwrite=True)
    (model / "1_Pooling" / "broken.txt").symlink_to(model / "nothing")
    with pytest.raises(FileNotFoundError, match=r"broken\.txt' is a link to '.*nothing'"):
        write_compressed_tensors(again, tmp_path / "other", model=model)


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"torch_dtype": "torch.float16"}, "float16"),
        ({"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({"dtype": "auto"}, "float32"),
        ({"dtype": None}, "float32"),
        ({}, "float32"),
    ],
)
def test_scales_have_the_model_s_dtype(tmp_path: Path, config: dict[str, Any], dtype: str) -> None:
    model = saved(tmp_path / "model", arrays(), config)
    if dtype != "float32":
        text = f'its scales are not {dtype}: quantize with scale_dtype="{dtype}"'
        with pytest.raises(ValueError, match=text):
            write_compressed_tensors(
                results_of(model, group_size=32), tmp_path / "out", model=model
            )
    results = results_of(model, group_size=32, scale_dtype=dtype)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    written = read_model(tmp_path / "out")[f"{LINEAR[0]}_scale"][0]
    assert written == {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]


def holds(dtype: str = "float32") -> str:
    return (
        "compressed-tensors holds matrices of the model, named '<module>.weight', of 2, 3, 4, 5, 6 "
        "or 8 bits with group_size -1 or one that divides the columns, zero_point integer or "
        f"symmetric, and scales of the model's dtype, {dtype}. Quantize such layers with other "
        "settings, or leave them out of the results: the model's own are kept"
    )


EMBEDDING = (
    "by its name it is an embedding, a norm or a router, which transformers does not load packed: "
    'quantize with recipe=Recipe.preset("text"), which leaves such layers out'
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
            'its zero-points are not integers: quantize with zero_point="symmetric" or "integer"',
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
    for name in LINEAR:
        assert f"layer '{name}': its scales are not bfloat16: quantize with" in str(caught.value)
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"quantization_config": {}}, "has quantization_config: the model is quantized already"),
        ({"text_config": {"quantization_config": {}}}, "has quantization_config: the model"),
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

    fails(FileNotFoundError, "No such folder: .*no'. model is the folder", tmp_path / "no")
    fails(NotADirectoryError, "is a file. model is the folder", model / "config.json")
    for text in ("{", "[1]", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        (model / "config.json").write_bytes(text.encode("latin-1"))
        fails(ValueError, "config.json' (is not valid JSON|must be a JSON object)")
    (model / "config.json").unlink()
    fails(FileNotFoundError, "has no config.json. model is the folder of a Hugging Face model")
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


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [False, True])
def test_failing_streams_leave_nothing(
    tmp_path: Path, error: BaseException, existing: bool
) -> None:
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)
    if existing:
        write_compressed_tensors(results, tmp_path / "out", model=model)
    before = files(tmp_path)
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_compressed_tensors(
            failing_stream(results, error), tmp_path / "out", model=model, overwrite=True
        )
    assert files(tmp_path) == before


def without_atomic_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that cannot exchange two names at once."""
    monkeypatch.setattr("pyarrowquant._core.placing._renamed", lambda *_: False)


@pytest.mark.parametrize("call", ["shutil.copyfile", "os.fsync", "json.dumps", "os.rename"])
def test_any_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    model = saved(tmp_path / "model", arrays())
    (model / "tokenizer.json").write_text("{}")
    results = results_of(model, group_size=32)
    write_compressed_tensors(results, tmp_path / "old", model=model)
    before = files(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    without_atomic_renames(monkeypatch)
    for folder in ("new", "old"):
        with monkeypatch.context() as patch:
            patch.setattr(call, fail)
            with pytest.raises(OSError, match="no space left"):
                write_compressed_tensors(results, tmp_path / folder, model=model, overwrite=True)
        assert files(tmp_path) == before


def test_a_replaced_folder_is_back_when_renaming_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    before = files(tmp_path)
    rename = os.rename

    def fail_for_the_new(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError("gone")
        rename(source, target)

    without_atomic_renames(monkeypatch)
    monkeypatch.setattr("os.rename", fail_for_the_new)
    with pytest.raises(OSError, match="gone"):
        write_compressed_tensors(results, tmp_path / "out", model=model, overwrite=True)
    assert files(tmp_path) == before


def test_existing_folders(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)
    out = tmp_path / "out"
    out.mkdir()
    write_compressed_tensors(results, out, model=model)  # an empty one may be there
    first = files(out)
    (out / "old.txt").write_text("old")
    with pytest.raises(FileExistsError, match=r"out' exists. Use overwrite=True to replace it"):
        write_compressed_tensors(results, out, model=model)
    assert (out / "old.txt").exists()
    write_compressed_tensors(results, out, model=model, overwrite=True)
    assert files(out) == first
    (out / "mine").mkdir()
    with pytest.raises(FileExistsError, match="has the folder 'mine', which would be lost"):
        write_compressed_tensors(results, out, model=model, overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("x")
    with pytest.raises(FileExistsError, match=r"has no model, neither config.json nor \*.safe"):
        write_compressed_tensors(results, other, model=model, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file; give the name of a folder"):
        write_compressed_tensors(results, other / "letter.txt", model=model, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"No such folder: '.*no'"):
        write_compressed_tensors(results, tmp_path / "no" / "out", model=model)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out", "other"}


def test_the_source_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    model = saved(tmp_path / "parent" / "model", arrays())
    (tmp_path / "parent" / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(model)
    results = results_of(model, group_size=32)
    before = files(tmp_path)
    for target in (model, tmp_path / "parent", tmp_path / "link", model / ".." / "model"):
        with pytest.raises(ValueError, match="is the folder of the source model, or has it inside"):
            write_compressed_tensors(results, target, model=model, overwrite=True)
    assert files(tmp_path) == before
    write_compressed_tensors(results, model / "packed", model=model)
    assert_decodes(model / "packed", results)


def test_a_source_that_changes_is_an_error(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    results = results_of(model, group_size=32)

    def changing() -> Any:
        with (model / "model.safetensors").open("ab") as file:
            file.write(b"x")
        yield from results.to_batches()

    stream = pa.RecordBatchReader.from_batches(results.schema, changing())
    with pytest.raises(ValueError, match="bytes when its header was read, now it has"):
        write_compressed_tensors(stream, tmp_path / "out", model=model)
    assert os.listdir(tmp_path) == ["model"]


def test_the_text_preset_leaves_what_is_to_be_left(tmp_path: Path) -> None:
    tensors = {**arrays(), "lm_head.weight": weights(1, 6, 64)}
    model = saved(tmp_path / "model", tensors)
    results = results_of(model, Recipe.preset("text"), group_size=32, zero_point="symmetric")
    assert results["layer_name"].to_pylist() == LINEAR
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert pyarrowquant.formats.write_compressed_tensors is write_compressed_tensors
