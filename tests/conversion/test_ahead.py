"""Layers are decoded while the batch before them is in use, with the same bytes and errors."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from child import HANG
from kinds_of_codes import FP8, UP
from quantized_models import folder

from pyarrowquant import convert
from pyarrowquant.conversion import ahead
from pyarrowquant.conversion.ahead import read_ahead
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.tensors import CodedTensor, Tensor

COUNT, SIZE = 6, 512
NAMES = [UP.format(i) for i in range(COUNT)]
BATCH = 4 * SIZE * SIZE  # bytes of a layer, so that each is a batch
MEMORY = 128 * 2**20 + 4 * BATCH  # with which convert reads batches of these bytes
OPTIONS: dict[str, Any] = {"to": "compressed-tensors", "max_memory": MEMORY}

pytestmark = pytest.mark.filterwarnings("ignore:Quantized already:UserWarning")

Decode = Callable[[str, Callable[[], Any]], Any]  # a layer, given what decodes it


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    tensors: dict[str, np.ndarray] = {}
    for name in NAMES:
        weights = rng.standard_normal((SIZE, SIZE), np.float32)
        tensors[name] = weights.astype(ml_dtypes.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = np.ones((SIZE // 128, SIZE // 128), np.float32)
        tensors[f"norm.{name}"] = np.ones(SIZE, np.float32)  # is mapped, between those decoded
    return folder(tmp_path / "model", tensors, dtype="float32", **FP8)


def opened(source: Path, decode: Decode) -> Model:
    """A model whose layers are decoded by a function."""
    model = open_model(locate(source, None))
    assert isinstance(model, ShardedModel)

    def become(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, CodedTensor):
            return tensor
        return replace(tensor, decode=partial(decode, tensor.name, tensor.decode))

    return model.with_tensors(become)


def layers_of(batch: pa.RecordBatch) -> list[str]:
    return [name for name in batch["layer_name"].to_pylist() if name in NAMES]


def test_batches_are_those_that_come_without_it(source: Path) -> None:
    threads: list[threading.Thread] = []

    def decode(_: str, decoded: Callable[[], Any]) -> Any:
        threads.append(threading.current_thread())
        return decoded()

    expected = list(open_model(locate(source, None)).reader(BATCH, skip=1))
    with read_ahead(opened(source, decode), BATCH, skip=1) as reader:
        assert reader.schema == expected[0].schema
        found = list(reader)
    assert found == expected
    assert len(threads) == COUNT - 1
    assert threads[0] is threading.main_thread()
    assert set(threads[1:]) == {threads[-1]} != {threading.main_thread()}


class Owner(np.ndarray):
    """An array that batches refer to."""


def test_one_batch_is_decoded_while_another_one_is_in_use(source: Path) -> None:
    begun = {name: threading.Event() for name in NAMES}
    alive: list[weakref.ref[Any]] = []
    beside: list[int] = []

    def decode(name: str, decoded: Callable[[], Any]) -> Any:
        beside.append(sum(array() is not None for array in alive))
        begun[name].set()
        weights = Owner((SIZE, SIZE), np.float32)
        weights[...] = decoded()
        alive.append(weakref.ref(weights))
        return weights

    with read_ahead(opened(source, decode), BATCH) as reader:
        for batch in reader:
            for name in layers_of(batch):
                after = NAMES[NAMES.index(name) + 1 :]
                assert all(begun[each].wait(HANG) for each in after[:1])
                assert not any(begun[each].is_set() for each in after[1:])
            del batch
    assert beside == [0, *[1] * (COUNT - 1)]  # the one in use, and none before it


def test_layers_that_take_too_much_together_are_decoded_one_by_one(source: Path) -> None:
    threads = set()

    def decode(_: str, decoded: Callable[[], Any]) -> Any:
        threads.add(threading.current_thread())
        return decoded()

    with read_ahead(opened(source, decode), BATCH - 1) as reader:
        assert sum(batch.num_rows for batch in reader) == 2 * COUNT
    assert threads == {threading.main_thread()}


def test_of_a_part_no_more_is_decoded_than_is_taken(source: Path) -> None:
    decoded_names = []

    def decode(name: str, decoded: Callable[[], Any]) -> Any:
        decoded_names.append(name)
        return decoded()

    with read_ahead(opened(source, decode), BATCH, count=1) as reader:
        taken = layers_of(reader.read_next_batch())
    assert decoded_names == taken


def test_an_error_comes_after_the_batches_before_it(source: Path) -> None:
    error = ValueError(f"{source}: '{NAMES[3]}' is damaged")

    def decode(name: str, decoded: Callable[[], Any]) -> Any:
        if name == NAMES[3]:
            raise error
        return decoded()

    def read() -> None:
        with read_ahead(opened(source, decode), BATCH) as reader:
            for batch in reader:
                found.extend(layers_of(batch))

    before = threading.active_count()
    found: list[str] = []
    with pytest.raises(ValueError, match="is damaged") as raised:
        read()
    assert raised.value is error
    assert found == NAMES[:3]
    assert threading.active_count() == before


def test_no_thread_outlives_an_interrupt(source: Path) -> None:
    begun, interrupted = threading.Event(), threading.Event()
    ended: list[str] = []

    def decode(name: str, decoded: Callable[[], Any]) -> Any:
        if name == NAMES[1]:
            begun.set()
            interrupted.wait()
        ended.append(name)
        return decoded()

    def read() -> None:
        with read_ahead(opened(source, decode), BATCH) as reader:
            reader.read_next_batch()
            assert begun.wait(HANG)
            interrupted.set()
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        read()
    assert ended == NAMES[:2]
    assert threading.active_count() == before


def test_a_signal_breaks_off_waiting_for_the_next_batch(source: Path) -> None:
    before, is_left = threading.active_count(), threading.Event()

    def decode(name: str, decoded: Callable[[], Any]) -> Any:
        if name == NAMES[2]:
            os.kill(os.getpid(), signal.SIGINT)
            is_left.wait(HANG)
        return decoded()

    def read() -> None:
        with read_ahead(opened(source, decode), BATCH) as reader:
            try:
                for _ in reader:
                    pass
            finally:
                is_left.set()

    with pytest.raises(KeyboardInterrupt):
        read()
    assert threading.active_count() == before


def watch(monkeypatch: pytest.MonkeyPatch, tell: Callable[[], object]) -> None:
    """Have something told before each batch that a conversion decodes."""
    original = ahead.decoded_batch

    def decoded_batch(layers: Sequence[Tensor]) -> pa.RecordBatch:
        tell()
        return original(layers)

    monkeypatch.setattr(ahead, "decoded_batch", decoded_batch)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("options", "passes"),
    [({}, 1), ({"bits_per_weight": 6.0}, 2), ({"continue_on_error": True}, 1)],
)
def test_conversions_decode_ahead(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    passes: int,
) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    monkeypatch.setattr(ahead, "most_decoded", lambda _: 0)
    convert(source, plain, **OPTIONS, **options)
    monkeypatch.undo()
    threads: list[threading.Thread] = []
    watch(monkeypatch, lambda: threads.append(threading.current_thread()))
    before = threading.active_count()
    convert(source, other, **OPTIONS, **options)
    assert threading.active_count() == before
    assert contents(other) == contents(plain)
    on_main = threads.count(threading.main_thread())
    assert (on_main, len(threads)) == (passes, passes * COUNT)


def test_a_run_that_a_signal_ends_while_it_decodes_is_continued(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    convert(source, whole, **OPTIONS)
    threads: list[threading.Thread] = []

    def tell() -> None:
        threads.append(threading.current_thread())
        if len(threads) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    watch(monkeypatch, tell)
    before = threading.active_count()
    with (
        pytest.raises(KeyboardInterrupt),
        pytest.warns(UserWarning, match="What is done stays in"),
    ):
        convert(source, out, **OPTIONS)
    assert threading.active_count() == before
    assert not out.exists()
    monkeypatch.undo()
    convert(source, out, **OPTIONS, resume=True)
    assert contents(out) == contents(whole)


def test_a_source_that_changes_while_it_is_decoded_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = source / "model.safetensors"
    threads: list[threading.Thread] = []

    def tell() -> None:
        threads.append(threading.current_thread())
        if len(threads) == 3:
            file.write_bytes(file.read_bytes() + b" ")

    watch(monkeypatch, tell)
    with pytest.raises(ValueError, match=f"has changed: '{file.name}'") as raised:
        convert(source, tmp_path / "out", **OPTIONS)
    assert "\n" not in str(raised.value)
    assert threads[2] is not threading.main_thread()
    assert not list(tmp_path.glob("*out*"))
