"""Folders for transformers: bytes decoded by numpy, the rest of the model as it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from conftest import OnlyStream
from exports import files, weights
from models import write_shards, write_table

import pyarrowquant
from formats.packed_models import (
    CONFIG,
    LINEAR,
    ONLY_LINEAR,
    Arrays,
    arrays,
    assert_decodes,
    assert_kept,
    config_of,
    read_file,
    read_model,
    results_of,
    saved,
)
from pyarrowquant import Recipe, quantize_batch_arrow, quantize_stream, read_weights
from pyarrowquant.formats import write_compressed_tensors
from pyarrowquant.reading.opened import MappedFile

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


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
    monkeypatch.setattr("pyarrowquant._core.laying._BYTES_A_PIECE", 100)
    monkeypatch.setattr("pyarrowquant.formats._model_folder._PIECE", 7)
    tensors = arrays(rows=33, columns=120)
    model = saved(tmp_path / "model", tensors)
    results = results_of(model, bit_width=3, group_size=8)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert_decodes(tmp_path / "out", results)
    assert_kept(tmp_path / "out", tensors)


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
    assert {name for batch in reader for name in batch["layer_name"].to_pylist()} == tensors.keys()


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


def test_the_text_preset_leaves_what_is_to_be_left(tmp_path: Path) -> None:
    tensors = {**arrays(), "lm_head.weight": weights(1, 6, 64)}
    model = saved(tmp_path / "model", tensors)
    results = results_of(model, Recipe.preset("text"), group_size=32, zero_point="symmetric")
    assert results["layer_name"].to_pylist() == LINEAR
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert pyarrowquant.formats.write_compressed_tensors is write_compressed_tensors
