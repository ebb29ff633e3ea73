"""What a conversion returns of every tensor: what became of it, its settings, bits and errors."""

from __future__ import annotations

import dataclasses
import json
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import gguf_models
import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from stores import WatchedStore

from conversion.killing import FORMATS, killed_after
from conversion.on_workers import base_of_gguf, workers
from pyarrowquant import Conversion, Recipe, Rule, Settings, convert, dequantize_batch_arrow
from pyarrowquant.conversion.partial.work import Work

RNG = np.random.default_rng(3)
UP, DOWN, ODD = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("up", "down", "odd"))
TENSORS = {
    UP: RNG.standard_normal((32, 256)).astype(np.float32),
    DOWN: RNG.standard_normal((256, 128)).astype(np.float16),
    ODD: RNG.standard_normal((8, 100)).astype(np.float32),
    "model.norm.weight": np.ones(128, np.float32),
    "position_ids": np.arange(9),
}
ERRORS = ("mse", "relative_error", "cosine", "max_abs_error")
Options = dict[str, Any]
FLOOR = {"relative_error": 0.05}


def options_of(kind: str) -> tuple[str, Options]:
    """The destination's name and the arguments of a kind of run."""
    name, said = FORMATS[kind]
    options: Options = {"recipe": Recipe([Rule("*norm*", skip=True)])} if kind == "shards" else {}
    words = iter(said)
    for word in words:
        key = word.removeprefix("--").replace("-", "_")
        flags = ("double", "tensors_only")
        options[key] = True if key in flags else next(words)
    if "group_size" in options:
        options["group_size"] = int(options["group_size"])
    return name, options


def checked(done: Conversion) -> Conversion:
    """What it says of single tensors adds up to what it says of all."""
    quantized = [tensor for tensor in done.tensors if tensor.became == "quantized"]
    others = [tensor for tensor in done.tensors if tensor.became != "quantized"]
    assert len(quantized) == done.layers
    assert sum(tensor.bits for tensor in quantized) / done.weights == done.bits_per_weight
    for tensor in quantized:
        assert tensor.reason is None
        assert isinstance(tensor.settings, Settings)
        assert all(isinstance(getattr(tensor, error), float) for error in ERRORS)
    for tensor, left in zip(others, done.unquantized, strict=True):
        assert (tensor.name, tensor.shape, tensor.dtype) == (left.name, left.shape, left.dtype)
        assert (tensor.reason, tensor.bits) == (left.reason, 8 * left.kept_bytes)
        assert (tensor.became == "left out") is not left.kept
        assert tensor.settings is None
        assert all(getattr(tensor, error) is None for error in ERRORS)
    return done


def test_every_tensor_in_the_order_of_the_source(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    names = sorted(TENSORS, key=lambda name: header[name]["data_offsets"])
    with pytest.warns(UserWarning, match="Kept, as the format does not take their shape"):
        done = checked(convert(tmp_path / "m.safetensors", tmp_path / "out.gguf", bit_width=4))
    found = {tensor.name: tensor for tensor in done.tensors}
    assert [tensor.name for tensor in done.tensors] == names
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    for name, tensor in found.items():
        assert tensor.shape == TENSORS[name].shape
        assert tensor.bits == 8 * written[name].n_bytes
        assert (tensor.became == "quantized") is (name in (UP, DOWN))
    assert (found[UP].dtype, found[DOWN].dtype) == ("F32", "F16")
    assert found[ODD].reason == "the format does not take their shape"
    assert found[UP].settings == Settings(4, 32, "mse", "symmetric", "float16")


def test_errors_are_those_of_what_was_written(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "m.safetensors")
    rules = [Rule("*down*", bit_width=8, group_size=64), Rule("*odd*", encoding="nf4")]
    out = tmp_path / "out.parquet"
    done = checked(convert(tmp_path / "m.safetensors", out, recipe=Recipe(rules)))
    decoded = dequantize_batch_arrow(pq.read_table(out))
    weights = dict(zip(decoded["layer_name"].to_pylist(), decoded["weights"], strict=True))
    rows = {row["layer_name"]: row for row in pq.read_table(out).to_pylist()}
    assert weights.keys() == rows.keys() == TENSORS.keys() - {"position_ids"}
    for tensor in done.tensors:
        if tensor.name not in rows:
            assert tensor.became == "left out"
            continue
        was = TENSORS[tensor.name].astype(np.float64).ravel()
        is_ = weights[tensor.name].values.to_numpy().astype(np.float64)
        assert tensor.mse == pytest.approx(np.mean((was - is_) ** 2), rel=1e-9)
        relative = np.linalg.norm(was - is_) / np.linalg.norm(was)
        assert tensor.relative_error == pytest.approx(relative, rel=1e-9)
        assert tensor.max_abs_error == pytest.approx(np.abs(was - is_).max(), rel=1e-6)
        row = rows[tensor.name]
        assert [getattr(tensor, error) for error in ERRORS] == [row[error] for error in ERRORS]
        assert tensor.settings is not None
        assert tensor.settings.bit_width == row["bit_width"]
        assert tensor.settings.group_size == row["group_size"]
        assert tensor.settings.encoding == row["encoding"]


def test_what_was_codes(tmp_path: Path) -> None:
    """Decoded and quantized, decoded since the format has no such codes, or kept."""
    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    for name in ("blk.0.ffn_up.weight", "blk.0.ffn_down.weight"):
        weights = RNG.standard_normal((32, 256)).astype(np.float32)
        writer.add_tensor(name, gguf.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    recipe = Recipe([Rule("*down*", skip=True)])
    for to, became, bits in (
        ("gguf", "kept", 8 * 32 * 256 * 34 // 32),
        ("mlx", "decoded", 32 * 32 * 256),
        ("parquet", "left out", 0),
    ):
        with pytest.warns(UserWarning, match="decoded first"):
            done = checked(
                convert(
                    *(tmp_path / "m.gguf", tmp_path / to),
                    to=to,
                    recipe=recipe,
                    tensors_only=to == "mlx",
                )
            )
        up, down = done.tensors
        assert (up.name, up.became, up.dtype) == ("blk.0.ffn_up.weight", "quantized", "Q8_0")
        assert (down.became, down.dtype, down.bits) == (became, "Q8_0", bits), to


def test_what_failed_is_said_with_why(tmp_path: Path) -> None:
    bad = np.full((32, 64), np.nan, np.float32)
    save_file({UP: TENSORS[UP], DOWN: bad}, tmp_path / "m.safetensors")
    for name, became in (("out.gguf", "kept"), ("out.parquet", "left out")):
        with pytest.warns(UserWarning, match="Skipped"):
            done = convert(tmp_path / "m.safetensors", tmp_path / name, continue_on_error=True)
        found = {tensor.name: (tensor.became, tensor.reason) for tensor in checked(done).tensors}
        assert found == {UP: ("quantized", None), DOWN: (became, "with NaN or Inf")}


@pytest.mark.parametrize(("to", "encoding"), [("parquet", "int"), ("gguf", "q3_k")])
def test_settings_are_those_that_a_floor_chose(tmp_path: Path, to: str, encoding: str) -> None:
    wild = RNG.standard_t(2, (64, 256)).astype(np.float32)
    save_file({UP: TENSORS[UP], DOWN: wild}, tmp_path / "m.safetensors")
    said: Options = {"bit_width": 3} if encoding == "int" else {"encoding": encoding}
    out = tmp_path / f"out.{to}"
    done = checked(convert(tmp_path / "m.safetensors", out, quality_floor=FLOOR, **said))
    assert len(done.tensors) == 2
    for tensor in done.tensors:
        assert tensor.settings is not None
        assert tensor.settings.bit_width > 3
        assert tensor.relative_error is not None
        assert tensor.relative_error <= 0.05
        if to == "parquet":
            rows = {row["layer_name"]: row for row in pq.read_table(out).to_pylist()}
            assert tensor.settings.bit_width == rows[tensor.name]["bit_width"]
        else:
            (written,) = (each for each in gguf.GGUFReader(out).tensors if each.name == tensor.name)
            assert tensor.settings.encoding == written.tensor_type.name.lower()
            assert (
                tensor.settings.zero_point
                == Settings().with_overrides({"encoding": tensor.settings.encoding}).zero_point
            )


@pytest.mark.filterwarnings("ignore:Kept, as:UserWarning", "ignore:Quantized already:UserWarning")
def test_settings_are_those_that_a_budget_chose(tmp_path: Path) -> None:
    gguf_models.saved(tmp_path / "m.gguf")
    done = checked(convert(tmp_path / "m.gguf", tmp_path / "out.gguf", bits_per_weight=5))
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    found = [tensor for tensor in done.tensors if tensor.settings is not None]
    assert len(found) == done.layers
    for tensor in found:
        assert tensor.settings is not None
        if tensor.settings.encoding != "int":
            assert tensor.settings.encoding == written[tensor.name].tensor_type.name.lower()
        assert tensor.bits == 8 * written[tensor.name].n_bytes


@pytest.mark.parametrize("kind", ["compressed", "bitsandbytes", "mlx"])
def test_bits_are_those_of_the_tensors_in_the_output(
    model: Path, tmp_path: Path, kind: str
) -> None:
    name, options = options_of(kind)
    done = checked(convert(model, tmp_path / name, **options))
    written: dict[str, int] = {}
    for file in (tmp_path / name).glob("*.safetensors"):
        written |= {each: data.nbytes for each, data in load_file(file).items()}
    for tensor in done.tensors:
        stem = tensor.name.removesuffix("weight") if tensor.settings else tensor.name
        parts = {each: n for each, n in written.items() if each.startswith(stem)}
        said = ("weight_shape", "quant_state.bitsandbytes__nf4")
        assert 8 * sum(n for each, n in parts.items() if not each.endswith(said)) == tensor.bits


def test_they_are_frozen_and_travel(model: Path, tmp_path: Path) -> None:
    done = convert(model, tmp_path / "out.parquet")
    assert pickle.loads(pickle.dumps(done.tensors)) == done.tensors
    json.dumps([dataclasses.asdict(tensor) for tensor in done.tensors])
    with pytest.raises(dataclasses.FrozenInstanceError):
        done.tensors[0].name = "x"  # type: ignore[misc]


def interrupted(run: Callable[..., Conversion], method: str, times: int) -> None:
    with killed_after(Work, method, times):
        run()


PLACED = ("compressed", "bitsandbytes", "mlx")


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *((kind, {}) for kind in FORMATS),
        *((kind, {"quality_floor": FLOOR}) for kind in FORMATS if kind != "bitsandbytes"),
        *((kind, {"bits_per_weight": 5}) for kind in FORMATS if kind != "bitsandbytes"),
    ],
)
def test_after_an_interruption_all_is_said(
    model: Path, tmp_path: Path, kind: str, more: Options
) -> None:
    name, options = options_of(kind)
    options = {**options, **more}
    wanted = checked(convert(model, tmp_path / f"whole-{name}", **options))
    method = "note_done" if kind in PLACED and "quality_floor" not in more else "add"
    interrupted(lambda: convert(model, tmp_path / name, **options), method, 2)
    interrupted(lambda: convert(model, tmp_path / name, resume=True, **options), method, 1)
    done = checked(convert(model, tmp_path / name, resume=True, **options))
    assert done.tensors == wanted.tensors


def test_an_output_that_only_gets_its_place_says_all(model: Path, tmp_path: Path) -> None:
    wanted = convert(model, tmp_path / "whole.parquet")
    interrupted(lambda: convert(model, tmp_path / "out.parquet"), "complete", 1)
    done = checked(convert(model, tmp_path / "out.parquet", resume=True))
    assert done.tensors == wanted.tensors


@pytest.mark.parametrize("fewest", [1, 100], ids=["whole files", "results"])
@pytest.mark.parametrize("kind", ["compressed", "mlx", "gguf", "split"])
def test_workers_say_it_too(model: Path, tmp_path: Path, kind: str, fewest: int) -> None:
    """And another run, here, of what they have done and what they have not."""
    if kind in ("gguf", "split"):
        model, name = base_of_gguf(tmp_path / "base"), "out.gguf"
        options: Options = {"pre_tokenizer": "default", "method": "rtn"}
        options |= {"split": 300_000} if kind == "split" else {}
    else:
        name, options = options_of(kind)
    wanted = convert(model, tmp_path / f"whole-{name}", **options)
    is_by_files = fewest == 1 and kind in ("compressed", "split")
    with workers(fewest):
        done = checked(convert(model, tmp_path / f"other-{name}", **options))
        method = "note_file" if is_by_files else "note_done"
        interrupted(lambda: convert(model, tmp_path / name, **options), method, 2)
    assert done.tensors == wanted.tensors
    done = checked(convert(model, tmp_path / name, resume=True, **options))
    assert done.tensors == wanted.tensors


@pytest.mark.parametrize("kind", ["compressed", "mlx", "parquet", "gguf"])
def test_in_a_store(
    model: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    WatchedStore.reset()
    name, options = options_of(kind)
    wanted = convert(model, tmp_path / name, **options)
    written = 0

    def refuse(path: str) -> None:
        nonlocal written
        written += path.endswith((".safetensors", ".arrow"))
        if written == 3:
            raise OSError("503 Slow Down")

    WatchedStore.before_write = refuse
    if kind in ("compressed", "parquet"):
        with pytest.raises(OSError, match="503"), pytest.warns(UserWarning, match="stays in"):
            convert(model, f"watched://bucket/{name}", **options)
        assert written == 3
    WatchedStore.allow()
    done = checked(convert(model, f"watched://bucket/{name}", resume=True, **options))
    assert done.tensors == wanted.tensors


@pytest.mark.parametrize("how", ["gone", "cut off", "a bit", "other"])
def test_what_is_noted_of_layers_is_damaged(model: Path, tmp_path: Path, how: str) -> None:
    name, options = options_of("mlx")
    interrupted(lambda: convert(model, tmp_path / name, **options), "note_done", 2)
    note = tmp_path / ".out.partial" / "layers.jsonl"
    data = note.read_bytes()
    note.unlink()
    if how != "gone":
        flipped = bytes([data[9] ^ 1])
        changed = {"cut off": data[:-1], "a bit": data[:9] + flipped + data[10:], "other": b"[]\n"}
        note.write_bytes(changed[how])
    with pytest.raises(ValueError, match=r"layers\.jsonl' of an earlier run is damaged"):
        convert(model, tmp_path / name, resume=True, **options)


def test_of_bfloat16(tmp_path: Path) -> None:
    weights = RNG.standard_normal((64, 128)).astype(ml_dtypes.bfloat16)
    save_file({UP: weights}, tmp_path / "m.safetensors")
    (tensor,) = checked(convert(tmp_path / "m.safetensors", tmp_path / "out.onnx")).tensors
    assert (tensor.dtype, tensor.shape) == ("BF16", (64, 128))
