"""Importance of ONNX models, beside the inputs of their products as ONNX Runtime gives them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import onnx
import onnxruntime
import pytest
from commands import failed, run, succeeded
from onnx import helper, numpy_helper
from safetensors.numpy import load_file
from token_models import (
    ARRAYS,
    FLOAT,
    FLOAT16,
    INPUTS,
    INT64,
    TEXT,
    WIDTH,
    model,
    node,
    saved,
    value,
)

import pyarrowquant
from pyarrowquant.calibration.onnx_running import OnnxRunner

CONTEXT = 40


def noted(proto: Any) -> dict[str, tuple[np.ndarray, int]]:
    """Mean squares of inputs by column, and their number, of a model whose graph gives these."""
    for name in set(INPUTS.values()):
        proto.graph.output.append(value(name, FLOAT, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    parts: dict[str, list[np.ndarray]] = {name: [] for name in INPUTS.values()}
    ids = hf_folders.bpe().encode(TEXT).ids
    for begin in range(0, len(ids), CONTEXT):
        window = np.array([ids[begin : begin + CONTEXT]])
        feeds = {"input_ids": window, "attention_mask": np.ones_like(window)}
        for name in parts:
            (given,) = session.run([name], feeds)
            parts[name].append(given.reshape(-1, given.shape[-1]).astype(np.float64))
    rows = {name: np.concatenate(each) for name, each in parts.items()}
    return {
        layer: (np.square(rows[name]).mean(0), len(rows[name])) for layer, name in INPUTS.items()
    }


@pytest.mark.parametrize("opset", [17, 18])
def test_means_are_those_of_the_inputs(tmp_path: Path, opset: int) -> None:
    path, text = saved(tmp_path, model(opset))
    out = tmp_path / "i.safetensors"
    told = succeeded("calibrate", path, text, out, "--context", CONTEXT)
    assert "the importance of 4 layers" in told
    found = load_file(out)
    for layer, (means, count) in noted(model(opset)).items():
        np.testing.assert_allclose(found[layer], means, rtol=1e-6)
        assert found[f"{layer}.count"] == [count]
    assert len(found) == 2 * len(INPUTS)


def test_quantizing_with_it_keeps_what_matters(tmp_path: Path) -> None:
    """The outputs of layers differ less from those of the float model with it than without."""
    proto = model()
    proto.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(
            ARRAYS["table"] * np.geomspace(0.01, 10, WIDTH, dtype=np.float32), "table"
        )
    )
    path, text = saved(tmp_path, proto)
    importance = tmp_path / "i.safetensors"
    succeeded("calibrate", path, text, importance, "--context", CONTEXT)
    errors = []
    for name, options in (("plain", ()), ("weighed", ("--importance", importance))):
        out = tmp_path / f"{name}.onnx"
        result = run("quantize", path, out, "--group-size", 32, *options)
        assert result.exit_code == 0, result.output
        assert "Without importance" not in result.output
        errors.append(error_of(path, out, "a"))
    assert errors[1] < 0.8 * errors[0]


def error_of(path: Path, out: Path, output: str) -> float:
    ids = np.array([hf_folders.bpe().encode(TEXT).ids])
    found = []
    for each in (path, out):
        proto = onnx.load(each)
        proto.graph.output.append(value(output, FLOAT, None))
        onnx.save(proto, each.with_suffix(".seen.onnx"))
        session = onnxruntime.InferenceSession(each.with_suffix(".seen.onnx"))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        found.append(session.run([output], feeds)[0])
    return float(np.square(found[1] - found[0]).mean())


def test_weights_may_lie_beside_and_the_tokenizer_above(tmp_path: Path) -> None:
    path, text = saved(tmp_path, model())
    out, other = tmp_path / "i.safetensors", tmp_path / "other.safetensors"
    succeeded("calibrate", path, text, out)
    (tmp_path / "onnx").mkdir()
    beside = tmp_path / "onnx" / "model.onnx"
    onnx.save(model(), beside, save_as_external_data=True, location="data")
    succeeded("calibrate", beside, text, other)
    assert other.read_bytes() == out.read_bytes()


def test_decoders_begin_with_nothing_before(tmp_path: Path) -> None:
    """What other inputs are: positions, types, and empty pasts of the sizes that are said."""
    more = [
        value("position_ids", INT64, ["batch", "length"]),
        value("token_type_ids", INT64, ["batch", "length"]),
        value("past_key_values.0.key", FLOAT16, ["batch", 2, "past", 8]),
    ]
    proto = model(more=more)
    graph = proto.graph
    graph.node[3].input[0] = "with_past"
    added = [
        node("Cast", ["position_ids"], ["positions"], to=FLOAT),
        node("Cast", ["token_type_ids"], ["types"], to=FLOAT),
        node("Add", ["positions", "types"], ["both"]),
        node("Unsqueeze", ["both", "last"], ["column"]),
        node("Size", ["past_key_values.0.key"], ["past_size"]),
        node("Cast", ["past_size"], ["past_float"], to=FLOAT),
        node("Add", ["column", "past_float"], ["moved"]),
        node("Add", ["x", "moved"], ["with_past"]),
    ]
    nodes = [*list(graph.node)[:1], *added, *list(graph.node)[1:]]
    del graph.node[:]
    graph.node.extend(nodes)
    path, text = saved(tmp_path, proto)
    out = tmp_path / "i.safetensors"
    succeeded("calibrate", path, text, out, "--context", CONTEXT)
    ids = hf_folders.bpe().encode(TEXT).ids
    rows = ARRAYS["table"][ids] + (np.arange(len(ids)) % CONTEXT)[:, None]
    np.testing.assert_allclose(load_file(out)["up"], np.square(rows).mean(0), rtol=1e-5)


def test_a_run_goes_on_from_an_interruption(tmp_path: Path) -> None:
    path, text = saved(tmp_path, model())
    whole, out = tmp_path / "whole.safetensors", tmp_path / "i.safetensors"
    succeeded("calibrate", path, text, whole, "--context", 16, "--threads", 1)

    def breaking(done: int, _: int) -> None:
        if done >= 600:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pyarrowquant.calibrate(path, out, [text], context=16, threads=1, progress=breaking)
    steps: list[int] = []
    pyarrowquant.calibrate(
        path,
        out,
        [text],
        context=16,
        threads=1,
        resume=True,
        progress=lambda done, _: steps.append(done),
    )
    assert 512 < steps[0] < 600
    assert out.read_bytes() == whole.read_bytes()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def damages(whole: bytes) -> Iterator[bytes]:
    """Give what may become of the sums of an interrupted run."""
    with np.load(io.BytesIO(whole)) as file:
        arrays = {name: file[name] for name in file.files}
    said = json.loads(str(arrays["run"]))
    sums = next(name for name in arrays if name.startswith("sums."))
    counts = sums.replace("sums.", "counts.", 1)
    for other in ([], 5, {}, {**said, "windows_done": "1"}, {**said, "windows_done": -1}):
        yield npz(**{**arrays, "run": np.array(json.dumps(other))})
    yield npz(**{**arrays, "run": np.array("[" * 5000 + "]" * 5000)})
    yield npz(**{name: array for name, array in arrays.items() if name != counts})
    yield npz(**{**arrays, sums: arrays[sums].astype(np.float32)})
    yield npz(**{**arrays, sums: arrays[sums][0]})
    yield npz(**{**arrays, counts: np.ones(9, np.int64)})
    array = io.BytesIO()
    np.save(array, np.ones(3))
    yield from (b"", b"garbage", array.getvalue(), whole[:-9])
    at = whole.index(b"PK\1\2")  # the directory: flags, and how a member is packed
    for byte in (8, 10, 11, 28, 42):
        yield whole[: at + byte] + bytes([whole[at + byte] ^ 1]) + whole[at + byte + 1 :]


def test_damaged_sums_are_refused(tmp_path: Path) -> None:
    path, text = saved(tmp_path, model())
    out, partial = tmp_path / "i.safetensors", tmp_path / ".i.safetensors.partial"
    arguments = ["calibrate", path, text, out, "--context", 16, "--threads", 1]

    def breaking(done: int, _: int) -> None:
        if done >= 600:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pyarrowquant.calibrate(path, out, [text], context=16, threads=1, progress=breaking)
    for data in damages(partial.read_bytes()):
        partial.write_bytes(data)
        error = failed(*arguments, "--resume")
        assert "partial' of an earlier run is damaged" in error
    partial.unlink()
    partial.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in failed(*arguments)
    partial.unlink()
    succeeded(*arguments)
    assert sorted(tmp_path.glob(".*")) == []


def test_a_model_that_changes_is_refused(tmp_path: Path) -> None:
    path, text = saved(tmp_path, model())
    out = tmp_path / "i.safetensors"

    def changing(_: int, __: int) -> None:
        path.write_bytes(path.read_bytes())

    with pytest.raises(ValueError, match="was changed while it was read"):
        pyarrowquant.calibrate(path, out, [text], context=16, threads=1, progress=changing)
    assert not out.exists()


def test_the_header_of_another_model_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = saved(tmp_path, model())
    original = OnnxRunner.tokens_of

    def changing(runner: OnnxRunner, texts: Sequence[str]) -> Any:
        path.write_bytes(path.read_bytes())
        return original(runner, texts)

    monkeypatch.setattr(OnnxRunner, "tokens_of", changing)
    assert "was changed while it was read" in failed(
        "calibrate", path, text, tmp_path / "i.safetensors"
    )
    assert not (tmp_path / "i.safetensors").exists()


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "i.safetensors"
    path, text = saved(tmp_path, model(more=[value("pixels", FLOAT, [1, 3])]))
    assert "it has the inputs pixels." in failed("calibrate", path, text, out)
    path, _ = saved(tmp_path, model())
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "is none that tokenizers reads" in failed("calibrate", path, text, out)
    (tmp_path / "tokenizer.json").unlink()
    assert "has no tokenizer.json beside it" in failed("calibrate", path, text, out)
    proto = model()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(ARRAYS["table"][:9], "table"))
    path, _ = saved(tmp_path, proto)
    assert "does not run on 512 tokens" in failed("calibrate", path, text, out)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(ARRAYS["table"] * np.nan, "table"))
    path, _ = saved(tmp_path, proto)
    assert "NaN or Inf" in failed("calibrate", path, text, out)
    assert not out.exists()


def test_products_within_branches_are_not_seen(tmp_path: Path) -> None:
    proto = model()
    graph = proto.graph
    body = helper.make_graph(list(graph.node), "body", [], [value("y", FLOAT, None)])
    del graph.node[:]
    graph.node.extend(
        [
            node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
            node("If", ["yes"], ["out"], then_branch=body, else_branch=body),
        ]
    )
    graph.output[0].name = "out"
    path, text = saved(tmp_path, proto)
    error = failed("calibrate", path, text, tmp_path / "i.safetensors")
    assert "all layers are within If, Loop or Scan" in error


def test_quantized_products_are_said_to_be_such(tmp_path: Path) -> None:
    path, text = saved(tmp_path, model())
    out = tmp_path / "q.onnx"
    succeeded("quantize", path, out, "--group-size", 32)
    error = failed("calibrate", out, text, tmp_path / "i.safetensors")
    assert f"{out} has no MatMul or Gemm with a float weight. If it is quantized, cal" in error


# Runs `calibrate` on some tokens of a text, and prints how many KiB the process took at most: by
# its own status, as what getrusage says may be of the process that has started it.
MEASURED = """
import sys
import pyarrowquant
pyarrowquant.calibrate(sys.argv[1], sys.argv[3], [sys.argv[2]], tokens=2560, context=64)
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""


def test_of_long_texts_little_is_made_into_tokens(tmp_path: Path) -> None:
    """From all parts: of 10 MB, of which a tenth is of other words."""
    path, text = saved(tmp_path, model())
    out = tmp_path / "i.safetensors"
    text.write_text("dog " * 2_250_000 + "fox " * 250_000)
    command = [sys.executable, "-c", MEASURED, *map(str, (path, text, out))]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(ran.stdout) < 500_000
    kinds, counts = [], []
    for word in ("dog ", "fox "):
        ids = hf_folders.bpe().encode(word * 640).ids
        counts.append(len(ids))
        kinds.append(np.square(ARRAYS["table"][ids].astype(np.float64)).mean(0))
    found = load_file(out)["up"] - kinds[0]
    part = found @ (kinds[1] - kinds[0]) / np.square(kinds[1] - kinds[0]).sum()
    assert part == pytest.approx(counts[1] / (9 * counts[0] + counts[1]), rel=0.1)
    np.testing.assert_allclose(found, part * (kinds[1] - kinds[0]), atol=0.05)
