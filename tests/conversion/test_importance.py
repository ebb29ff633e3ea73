"""Conversions with the importance of columns, from files of llama-imatrix."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from gguf_models import imatrix, written

from pyarrowquant import (
    Recipe,
    Rule,
    UsageError,
    convert,
    numpy_to_arrow_table,
    plan,
    quantize_batch_arrow,
    read_importance,
    read_weights,
)
from pyarrowquant.formats import write_gguf

RNG = np.random.default_rng(11)
UP, EXPERTS = "blk.0.ffn_up.weight", "blk.0.ffn_down_exps.weight"
HEAD = "output.weight"


def weights(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / 50).astype(np.float32)


def means(*shape: int) -> np.ndarray:
    return RNG.exponential(size=shape).astype(np.float32) ** 2


def a_model(path: Path, layers: int = 1) -> Path:
    model = {UP: weights(32, 256), EXPERTS: weights(3, 200, 512), HEAD: weights(64, 256)}
    return written(path / "m.gguf", model, block_count=layers, expert_count=3)


def an_imatrix(path: Path) -> Path:
    layers = {UP: (means(256), np.ones(1)), EXPERTS: (means(3, 512), np.array([1, 2, 0]))}
    return imatrix(path / "i.gguf", layers)


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def with_column(source: Path, file: Path) -> pa.Table:
    """The weights of a model with the importance as their column."""
    table = read_weights(source).read_all()
    rows = {row["layer_name"]: row["importance"] for row in read_importance(file).to_pylist()}
    column = [rows.get(name) for name in table["layer_name"].to_pylist()]
    return table.append_column("importance", pa.array(column, pa.list_(pa.float32())))


@pytest.mark.parametrize("encoding", ["q4_k", "iq4_nl", "q2_k"])
def test_results_are_those_of_the_column(tmp_path: Path, encoding: str) -> None:
    source, file = a_model(tmp_path), an_imatrix(tmp_path)
    with pytest.warns(UserWarning, match=r"Without importance in 'i\.gguf', .*: output\.weight$"):
        convert(source, tmp_path / "x.parquet", encoding=encoding, importance=file)
    table = with_column(source, file)
    expected = quantize_batch_arrow(table, encoding=encoding, method="mse", sort=False)
    found = pq.read_table(tmp_path / "x.parquet")
    assert found["scales"].to_pylist() == expected["scales"].to_pylist()
    assert found["quantized_data"].to_pylist() == expected["quantized_data"].to_pylist()
    plain = quantize_batch_arrow(
        table.drop_columns("importance"), encoding=encoding, method="mse", sort=False
    )
    both = zip(found["scales"].to_pylist(), plain["scales"].to_pylist(), strict=True)
    assert [a != b for a, b in both] == [True, True, False]


@pytest.mark.filterwarnings("ignore:Without importance")
def test_experts_have_an_importance_each(tmp_path: Path) -> None:
    source, file = a_model(tmp_path), an_imatrix(tmp_path)
    convert(source, tmp_path / "x.gguf", recipe="Q4_K_S", importance=file)
    stack = next(t for t in gguf.GGUFReader(source).tensors if t.name == EXPERTS).data
    values = np.float32(read_importance(file)["importance"][1].as_py()).reshape(3, 512)
    table = numpy_to_arrow_table({str(i): stack[i] for i in range(3)})
    column = pa.array(list(values), pa.list_(pa.float32()))
    alone = quantize_batch_arrow(
        table.append_column("importance", column), encoding="q4_k", method="mse"
    )
    write_gguf(alone, tmp_path / "alone.gguf")
    each = tensors(tmp_path / "alone.gguf")
    joined = b"".join(each[str(i)].data.tobytes() for i in range(3))
    assert tensors(tmp_path / "x.gguf")[EXPERTS].data.tobytes() == joined


@pytest.mark.filterwarnings("ignore:Without importance", "ignore:Quantized already")
def test_what_the_file_says_of_it(tmp_path: Path) -> None:
    source, file = a_model(tmp_path), an_imatrix(tmp_path)
    convert(source, tmp_path / "x.gguf", importance=file)
    fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
    said = {
        key.removeprefix("quantize.imatrix."): (field.contents(), field.types[0].name)
        for key, field in fields.items()
        if key.startswith("quantize.imatrix.")
    }
    assert said == {
        "file": ("i.gguf", "STRING"),
        "dataset": ("wiki.txt", "STRING"),
        "entries_count": (2, "UINT32"),
        "chunks_count": (7, "UINT32"),
    }
    convert(tmp_path / "x.gguf", tmp_path / "y.gguf", recipe="Q8_0")
    assert not any("imatrix" in key for key in gguf.GGUFReader(tmp_path / "y.gguf").fields)


@pytest.mark.filterwarnings("ignore:Without importance")
@pytest.mark.parametrize(
    ("recipe", "with_it", "without"),
    [
        ("Q4_0", ["Q4_1", "Q4_0"], ["Q4_0", "Q4_0"]),
        ("Q5_0", ["Q5_1", "Q5_0"], ["Q5_0", "Q5_0"]),
        ("IQ4_XS", ["IQ4_XS", "IQ4_XS"], ["Q5_K", "IQ4_XS"]),
        ("IQ4_NL", ["IQ4_NL", "IQ4_NL"], ["Q5_K", "IQ4_NL"]),
    ],
)
def test_mixes_that_go_by_it(
    tmp_path: Path, recipe: str, with_it: list[str], without: list[str]
) -> None:
    names = [f"blk.{i}.ffn_down.weight" for i in range(8)]
    model = {name: weights(16, 256) for name in names}
    source = written(tmp_path / "m.gguf", model, block_count=8)
    file = imatrix(tmp_path / "i.gguf", {names[0]: (means(256), np.ones(1))})
    for importance, expected in ((file, with_it), (None, without)):
        convert(source, tmp_path / "x.gguf", recipe=recipe, importance=importance, overwrite=True)
        found = tensors(tmp_path / "x.gguf")
        assert [found[name].tensor_type.name for name in names[:2]] == expected


@pytest.mark.filterwarnings("ignore:Without importance")
def test_budgets_look_at_it(tmp_path: Path) -> None:
    source, file = a_model(tmp_path), an_imatrix(tmp_path)
    done = convert(source, tmp_path / "x.gguf", bits_per_weight=5, importance=file)
    assert done.layers == 3


def test_what_does_not_fit_is_said_before_any_work(tmp_path: Path) -> None:
    source = a_model(tmp_path)
    other = imatrix(tmp_path / "o.gguf", {UP: (means(128), np.ones(1))})
    with pytest.raises(ValueError, match=r"'o.gguf' has 128 values for layer 'blk.0.ffn_up.*256"):
        plan(source, tmp_path / "x.gguf", importance=other)
    few = imatrix(tmp_path / "f.gguf", {EXPERTS: (means(2, 512), np.ones(2))})
    with pytest.raises(ValueError, match=r"has 2 x 512 values .* 3 matrices of 512 columns"):
        plan(source, tmp_path / "x.gguf", importance=few)
    rows = imatrix(tmp_path / "r.gguf", {UP: (means(2, 128), np.ones(2))})
    with pytest.raises(ValueError, match=r"has 2 x 128 values for layer 'blk.0.ffn_up.*has 256 c"):
        plan(source, tmp_path / "x.gguf", importance=rows)
    strange = imatrix(tmp_path / "s.gguf", {"x.weight": (means(256), np.ones(1))})
    with pytest.raises(ValueError, match=r"such as 'x.weight', and of none that"):
        plan(source, tmp_path / "x.gguf", importance=strange)
    file = an_imatrix(tmp_path)
    with pytest.raises(UsageError, match="leave out method='rtn'"):
        plan(source, tmp_path / "x.gguf", method="rtn", importance=file)
    pq.write_table(with_column(source, file), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="has a column importance of its own"):
        plan(tmp_path / "t.parquet", tmp_path / "x.parquet", importance=file)
    with pytest.raises(ValueError, match="is the source"):
        convert(source, file, to="gguf", importance=file, overwrite=True)


def test_stacks_whose_matrices_a_file_does_not_count(tmp_path: Path) -> None:
    """As llama-imatrix makes them of lists of before."""
    source, values = a_model(tmp_path), means(3, 512)
    layers = {UP: (means(256), np.ones(1)), HEAD: (means(256), np.ones(1))}
    for name, counts in (("one", 1), ("each", 3)):
        own = values.reshape(counts, -1)
        file = imatrix(tmp_path / f"{name}.gguf", {**layers, EXPERTS: (own, np.ones(counts))})
        convert(source, tmp_path / f"{name}.parquet", importance=file)  # warnings are errors
    found = [pq.read_table(tmp_path / f"{name}.parquet") for name in ("one", "each")]
    assert found[0].equals(found[1])


def test_importance_of_layers_that_the_model_lacks_is_named_once(tmp_path: Path) -> None:
    source = a_model(tmp_path)
    names = [UP, EXPERTS, HEAD, *(f"blk.{i}.ffn_up.weight" for i in range(1, 6))]
    layers = {name: (means(256), np.ones(1)) for name in names}
    layers[EXPERTS] = means(3, 512), np.ones(3)
    file = imatrix(tmp_path / "i.gguf", layers)
    done = run("quantize", source, tmp_path / "x.gguf", "--imatrix", file)
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines()[0] == (
        f"Not used of 'i.gguf', as '{source}' has no such layers: blk.1.ffn_up.weight, "
        "blk.2.ffn_up.weight, blk.3.ffn_up.weight and 2 more"
    )
    assert done.stderr.count("Not used of") == 1


def test_importance_of_layers_that_stay_as_they_are_is_no_surprise(tmp_path: Path) -> None:
    rules = Recipe((Rule(HEAD, skip=True),))
    layers = {UP: (means(256), np.ones(1)), HEAD: (means(256), np.ones(1))}
    layers[EXPERTS] = means(3, 512), np.ones(3)
    file = imatrix(tmp_path / "i.gguf", layers)
    plan(a_model(tmp_path), tmp_path / "x.gguf", recipe=rules, importance=file)


def test_embeddings_of_another_size_do_without(tmp_path: Path) -> None:
    model = {"token_embd.weight": weights(32, 256), UP: weights(32, 256)}
    source = written(tmp_path / "m.gguf", model, block_count=1)
    layers = {"token_embd.weight": (means(32), np.ones(1)), UP: (means(256), np.ones(1))}
    file = imatrix(tmp_path / "i.gguf", layers)
    with pytest.warns(UserWarning, match=r"without a file: token_embd\.weight$"):
        plan(source, tmp_path / "x.gguf", importance=file)


def test_a_stack_that_could_be_taken_for_another_does_without(tmp_path: Path) -> None:
    """As many matrices as rows: an importance of each would be one of all columns of a row."""
    model = {EXPERTS: weights(4, 4, 256), UP: weights(32, 256)}
    source = written(tmp_path / "m.gguf", model, block_count=1)
    layers = {EXPERTS: (means(4, 256), np.ones(4)), UP: (means(256), np.ones(1))}
    file = imatrix(tmp_path / "i.gguf", layers)
    with pytest.warns(UserWarning, match=r"without a file: blk\.0\.ffn_down_exps\.weight$"):
        plan(source, tmp_path / "x.gguf", importance=file)


@pytest.mark.filterwarnings("ignore:Without importance")
def test_a_run_goes_on_with_the_same_importance(tmp_path: Path) -> None:
    source, file = a_model(tmp_path), an_imatrix(tmp_path)
    convert(source, tmp_path / "whole.gguf", importance=file)

    def stop(step: Any) -> None:
        if step.layers:
            raise RuntimeError("stopped")

    with pytest.warns(UserWarning, match="What is done"), pytest.raises(RuntimeError):
        convert(source, tmp_path / "x.gguf", importance=file, progress=stop)
    other = imatrix(tmp_path / "other.gguf", {UP: (means(256), np.ones(1))})
    with pytest.raises(ValueError, match=r"cannot be continued: .*the importance differs"):
        convert(source, tmp_path / "x.gguf", importance=other, resume=True)
    convert(source, tmp_path / "x.gguf", importance=file, resume=True)
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_the_command_line_takes_lists_of_before(tmp_path: Path) -> None:
    source = a_model(tmp_path)
    name, values = UP.encode(), means(256)
    data = struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 1, 256)
    (tmp_path / "i.dat").write_bytes(data + values.tobytes())
    options = (str(source), str(tmp_path / "x.gguf"), "--imatrix", str(tmp_path / "i.dat"))
    shown = run("quantize", *options)
    assert shown.exit_code == 0
    assert "Without importance in 'i.dat'" in shown.stderr
    shown = run("quantize", *options, "--overwrite", "--method", "rtn")
    assert (shown.exit_code, "--importance weighs" in shown.stderr) == (2, True)
