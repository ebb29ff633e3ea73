"""Results and ONNX models that do not fit, and files that stay as they are."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pyarrow as pa
import pytest
from conftest import attempt
from exports import data_file, failing_stream, files, quantized, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_models import MODELS, mlp, run, tied

from formats.quantized_onnx import LEAST_COSINE, cosine, quantize
from pyarrowquant.formats import write_onnx

HOLDS = (
    "MatMulNBits holds matrices of 2, 4 or 8 bits with a group_size that is a power of two and at "
    "least 16, or -1; with 8 bits, zero_point integer or symmetric. Quantize such layers with "
    "other settings, or leave them out. Layers must be those that read_weights gives for this model"
)


@pytest.mark.parametrize(
    ("array", "name", "options", "dtype", "problem"),
    [
        (
            *(weights(1, 100, 64), "other", {}, np.float32),
            "the model has no MatMul or Gemm with a constant of this name",
        ),
        (
            *(weights(1, 100, 64), "bias", {}, np.float32),
            "the model has no MatMul or Gemm with a constant of this name",
        ),
        (
            *(weights(1, 64, 100), "up", {}, np.float32),
            "shape [64, 100], the model's is [100, 64]",
        ),
        (weights(1, 100, 64), "up", {"bit_width": 3}, np.float32, "3 bits"),
        (weights(1, 100, 64), "up", {"group_size": 48}, np.float32, "group_size 48"),
        (
            *(weights(1, 100, 64), "up", {}, np.float16),
            "the model computes with float16, and its scales are not float16: quantize with "
            'scale_dtype="float16"',
        ),
        (
            *(weights(1, 100, 64), "up", {"zero_point": "float", "scale_dtype": "float16"}),
            np.float16,
            "the model computes with float16, and its zero-points are not float16: quantize with "
            "zero_point integer or symmetric",
        ),
        (
            *(weights(1, 100, 64), "up", {}, "bfloat16"),
            "the model computes with bfloat16, which MatMulNBits does not on the CPU; convert it "
            "to float32 or float16 before",
        ),
    ],
)
def test_refusals(
    tmp_path: Path, array: np.ndarray, name: str, options: Any, dtype: Any, problem: str
) -> None:
    model = mlp()
    type_ = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    model.arrays = {key: a.astype(type_) for key, a in model.arrays.items()}
    source = model.save(tmp_path / "model.onnx")
    before = files(tmp_path)
    result = quantized(array, names=[name], **options)
    for results in (result, failing_stream(result, AssertionError("is not reached"))):
        with pytest.raises(ValueError, match="The model cannot hold") as caught:
            write_onnx(results, tmp_path / "out.onnx", model=source)
        assert str(caught.value) == f"The model cannot hold layer '{name}': {problem}\n{HOLDS}"
        assert files(tmp_path) == before


def test_layers_that_come_twice(tmp_path: Path) -> None:
    source = mlp().save(tmp_path / "model.onnx")
    before = files(tmp_path)
    result = quantize(source)
    with pytest.raises(ValueError, match="Layer 'up' is in the results twice"):
        write_onnx(pa.concat_tables([result, result]), tmp_path / "out.onnx", model=source)
    assert files(tmp_path) == before


def test_the_source_is_never_replaced(tmp_path: Path) -> None:
    source, data = tmp_path / "model.onnx", tmp_path / "other.onnx.data"
    onnx.save(
        mlp().proto(), source, save_as_external_data=True, location=data.name, size_threshold=0
    )
    (tmp_path / "link.onnx").symlink_to(source)
    (tmp_path / "here").symlink_to(tmp_path)
    result = quantize(source)
    before = files(tmp_path)
    for path, file in (
        (source, source),
        (tmp_path / "link.onnx", tmp_path / "link.onnx"),
        (tmp_path / "here" / "model.onnx", tmp_path / "here" / "model.onnx"),
        (data, data),
    ):
        text = f"'{file}' is a file of the source model: give another path"
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            write_onnx(result, path, model=source, overwrite=True)
        assert files(tmp_path) == before


def test_existing_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    source, path = mlp().save(tmp_path / "model.onnx"), tmp_path / "out.onnx"
    result = quantize(source)
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"exists. Use overwrite=True to replace it"):
        write_onnx(result, path, model=source)
    before = files(tmp_path)
    broken = failing_stream(result, OSError("the disk is gone"))
    with pytest.raises(OSError, match="the disk is gone"):
        write_onnx(broken, path, model=source, overwrite=True)
    assert files(tmp_path) == before
    write_onnx(result, path, model=source, overwrite=True)
    assert set(files(tmp_path)) == {"model.onnx", "out.onnx", data_file(path).name}


def test_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = mlp().save(tmp_path / "model.onnx")
    result = quantize(source)
    with pytest.raises(FileNotFoundError, match=r"No such file or folder: 'missing.onnx'"):
        write_onnx(result, tmp_path / "out.onnx", model="missing.onnx")
    with pytest.raises(ValueError, match="is a folder; give the name of the model's file"):
        write_onnx(result, tmp_path / "out.onnx", model=tmp_path)
    with pytest.raises(TypeError, match="path must be a str or a path"):
        write_onnx(result, tmp_path / "out.onnx", model=3)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"^Writing ONNX needs onnx: pip install"):
        write_onnx(result, tmp_path / "out.onnx", model=source)


def test_models_that_the_checker_does_not_take(tmp_path: Path) -> None:
    """Those that onnxruntime runs all the same are written; where only ours is wrong, it is not."""
    model = mlp()
    proto = model.proto()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    source, path = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(proto, source)
    with pytest.raises(onnx.checker.ValidationError, match="Field 'shape'"):
        onnx.checker.check_model(source)
    write_onnx(quantize(source, 8), path, model=source)
    (found,), (exact,) = run(path, model.feeds), run(source, model.feeds)
    assert cosine(found, exact) > LEAST_COSINE[8]


def test_models_that_are_not_valid_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which a defect of ours would make them."""
    source = mlp().save(tmp_path / "model.onnx")
    result = quantize(source)
    before = files(tmp_path)

    def break_model(model: Any, *_: Any) -> None:
        del model.graph.node[0]

    monkeypatch.setattr("pyarrowquant.formats._onnx_graph._remove_unused", break_model)
    with pytest.raises(ValueError, match=r"model\.onnx does not give a valid ONNX model: .*sorted"):
        write_onnx(result, tmp_path / "out.onnx", model=source)
    assert files(tmp_path) == before


def test_external_data_that_is_damaged(tmp_path: Path) -> None:
    """Also of tensors that are no layers, before anything is written."""
    source = tmp_path / "model.onnx"
    onnx.save(tied().proto(), source, save_as_external_data=True, location="d", size_threshold=0)
    result = quantize(source)
    data = (tmp_path / "d").read_bytes()
    (tmp_path / "d").write_bytes(data[:-1])
    with pytest.raises(ValueError, match="'ids': its external data ends at"):
        write_onnx(result, tmp_path / "out.onnx", model=source)
    (tmp_path / "d").unlink()
    with pytest.raises(FileNotFoundError, match=r"the file of its data, .* is missing"):
        write_onnx(result, tmp_path / "out.onnx", model=source)
    proto = onnx.load(source, load_external_data=False)
    proto.graph.initializer[2].external_data[0].value = "../d"
    (tmp_path / "d").write_bytes(data)
    onnx.save(proto, source)
    with pytest.raises(ValueError, match="the file of its data must lie in the model's folder"):
        write_onnx(result, tmp_path / "out.onnx", model=source)


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_changed_bytes(tmp_path: Path, data: Any) -> None:
    """A damaged model is written or refused, and no other exception comes."""
    name = data.draw(st.sampled_from(["gemm", "branches", "tied", "constants"]))
    path = tmp_path / "model.onnx"
    MODELS[name]().save(path)
    result = quantize(path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        error = attempt(write_onnx, result, tmp_path / "out.onnx", model=path, overwrite=True)
        assert error is None or isinstance(error, ValueError)
    except FileNotFoundError:
        pass
