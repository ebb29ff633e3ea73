"""20,000 changed files of every format that Python code of this package parses.

Each is read, or refused with an error that names it: no other exception, no crash, no endless work.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import mutations
import numpy as np
import onnx
import pytest
import quantized_models
from child import HANG, ROOT
from onnx import helper, numpy_helper
from safetensors.numpy import save, save_file

from pyarrowquant import Recipe, Rule

COUNT = 20_000
PROCESSES = 2
# Processor time of 20,000 files, many times what they take, and memory on top of the imports.
MOST_SECONDS = 300
MOST_MEBIBYTES = 300

W = np.arange(12, dtype=np.float32).reshape(3, 4)
RECIPE = Recipe(
    [
        Rule(["*.q_proj.*", "*.k_proj.*"], bit_width=8, group_size=64),
        Rule(regex="norm|bias$", skip=True),
        Rule("*.mlp.*", ndim=[2, 3], min_columns=16, method="mse", zero_point="symmetric"),
    ],
    default={"bit_width": 4, "scale_dtype": "float16"},
    name="été",
)


def save_gguf(path: Path) -> int:
    writer = gguf.GGUFWriter(path, "llama")
    types = gguf.GGUFValueType
    for key, value, *kinds in (
        ("a.u8", 3, types.UINT8),
        ("a.i64", -3, types.INT64),
        ("a.f64", 0.5, types.FLOAT64),
        ("a.bool", True, types.BOOL),
        ("a.texts", ["a", "bé", ""], types.ARRAY, types.STRING),
        ("a.floats", [0.5, -1.0], types.ARRAY, types.FLOAT32),
        ("general.alignment", 32, types.UINT32),
        ("split.count", 1, types.UINT16),
    ):
        writer.add_key_value(key, value, *kinds)
    writer.add_tensor("blk.0.w", W)
    writer.add_tensor("blk.0.h", W.astype(np.float16))
    blocks = gguf.quants.quantize(np.ones((2, 32), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("q", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    # Blocks of zeros: a scale of 0 is one, whatever the type.
    writer.add_tensor("k", np.zeros((1, 144), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.stat().st_size - 200


def save_onnx(path: Path) -> int:
    """With data in the model, in fields of numbers, and in a file beside it."""
    outside = numpy_helper.from_array(W, "outside")
    (path.parent / "data").write_bytes(outside.raw_data + bytes(16))
    size = len(outside.raw_data)
    outside.ClearField("raw_data")
    outside.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "data"), ("offset", 0), ("length", size)):
        outside.external_data.add(key=key, value=str(value))
    body = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["t"])], "body", [], [])
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Transpose", ["outside"], ["turned"], perm=[1, 0]),
            helper.make_node("Gemm", ["a", "turned"], ["b"], transB=1),
            helper.make_node("If", ["c"], ["d"], then_branch=body, else_branch=body),
            helper.make_node("MatMul", ["b", "numbers"], ["y"]),
        ],
        "graph",
        [],
        [],
        [
            numpy_helper.from_array(W, "w"),
            outside,
            helper.make_tensor("numbers", onnx.TensorProto.FLOAT16, (4, 3), W.ravel()),
        ],
    )
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path.stat().st_size


def save_npz(path: Path) -> int:
    with path.open("wb") as file:
        np.savez_compressed(file, w=W, half=W.astype(np.float16), ids=np.arange(3))
    return path.stat().st_size


def save_plain_npz(path: Path) -> int:
    with path.open("wb") as file:
        np.savez(file, w=W, ids=np.arange(3))
    return path.stat().st_size


def save_safetensors(path: Path) -> int:
    data = save({"w": W, "h": W.astype(np.float16), "ids": np.arange(3)}, {"format": "np"})
    path.write_bytes(data)
    return 8 + int.from_bytes(data[:8], "little")


def save_codes(path: Path) -> int:
    """FP8 with scales, and a pack of compressed-tensors."""
    quantized_models.save(
        path,
        {
            "f.weight": W.astype(ml_dtypes.float8_e4m3fn),
            "f.weight_scale": np.ones((3, 1), np.float32),
            "p.weight_packed": np.ones((3, 4), np.int32),
            "p.weight_scale": np.ones((3, 1), np.float16),
            "p.weight_shape": np.array([3, 32]),
        },
    )
    group = {"weights": {"num_bits": 4, "type": "int", "strategy": "channel", "symmetric": True}}
    config = {"format": "pack-quantized", "config_groups": {"group_0": group}}
    (path.parent / "config.json").write_text(json.dumps({"quantization_config": config}))
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def save_index(path: Path) -> int:
    shards = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    save_file({"a": W, "b": W}, path.parent / shards[0])
    save_file({"c": W}, path.parent / shards[1])
    path.write_text(
        f'{{"metadata": {{"total_size": 144}}, "weight_map": {{"a": "{shards[0]}", '
        f'"b": "{shards[0]}", "c": "{shards[1]}"}}}}'
    )
    return path.stat().st_size


def save_config(path: Path) -> int:
    path.write_text(
        '{"architectures": ["LlamaForCausalLM"], "rope_scaling": {"factor": 8.0, "low": [1, 4]}, '
        '"vocab_size": 128256, "bos_token_id": null, "tie": true, "scale": Infinity}'
    )
    return path.stat().st_size


def save_recipe(path: Path) -> int:
    RECIPE.save(path)
    if path.suffix == ".yaml":  # what people write by hand, too
        path.write_text(
            path.read_text() + "- &base {match: [head, 'x*'], bit_width: 0x4}\n"
            "- {<<: *base, match: tail}\n"
        )
    return path.stat().st_size


# File name, how to make it, and what it is.
FORMATS: dict[str, tuple[str, Callable[[Path], int], str]] = {
    "safetensors": ("m.safetensors", save_safetensors, "safetensors"),
    "codes": ("m.safetensors", save_codes, "safetensors"),
    "gguf": ("m.gguf", save_gguf, "binary"),
    "onnx": ("m.onnx", save_onnx, "binary"),
    "npz": ("m.npz", save_npz, "binary"),
    "plain npz": ("m.npz", save_plain_npz, "text"),
    "index": ("model.safetensors.index.json", save_index, "index"),
    "config": ("config.json", save_config, "config"),
    "recipe json": ("r.json", save_recipe, "recipe"),
    "recipe yaml": ("r.yaml", save_recipe, "recipe"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_changed_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    file_name, make, kind = FORMATS[name]
    model = tmp_path / "model"
    model.mkdir()
    end = make(model / file_name)
    source = tmp_path / "source"
    (model / file_name).rename(source)
    seed = zlib.crc32(name.encode()) % 10**9  # other changes for each format

    def run(process: int) -> str:
        folder = shutil.copytree(model, tmp_path / str(process))
        each = COUNT // PROCESSES
        return run_seeds(source, folder / file_name, seed + process * each, each, end, kind)

    with ThreadPoolExecutor(PROCESSES) as pool:
        outputs = [output.strip().splitlines() for output in pool.map(run, range(PROCESSES))]
    results: Counter[str] = Counter()
    seconds = 0.0
    for *bad, summary in outputs:
        assert not any(bad), "\n".join(bad)
        said = json.loads(summary)
        assert said["mebibytes"] <= MOST_MEBIBYTES
        seconds += said["seconds"]
        results.update(said["results"])
    print(name, dict(results), f"{seconds:.0f} s")
    assert seconds <= MOST_SECONDS
    assert sum(results.values()) == COUNT
    assert min(results["read"], results["refused"]) > COUNT // 50


def run_seeds(source: Path, target: Path, first: int, count: int, end: int, kind: str) -> str:
    arguments: list[Any] = [source, target, first, count, end, kind]
    done = subprocess.run(
        [sys.executable, mutations.__file__, *map(str, arguments)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1:]
    assert done.returncode == 0, f"ended with {done.returncode} after {last}: {done.stderr[-2000:]}"
    return done.stdout
