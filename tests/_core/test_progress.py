"""Progress: one call a layer, fractions that only grow, and mistakes that do no harm."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import (
    OnlyStream,
    assert_same,
    numbered_batches,
    plain,
    plain_layers,
)

from pyarrowquant import Recipe, quantize_batch, quantize_batch_arrow, quantize_stream

pytestmark = pytest.mark.usefixtures("nothing_leaked")

Seen = list[tuple[str, float]]


def recorder() -> tuple[Seen, Callable[[str, float], None]]:
    """Return a list and the callback that fills it."""
    seen: Seen = []
    return seen, lambda name, fraction: seen.append((name, fraction))


def assert_grows_to_one(seen: Seen) -> None:
    """Check the fractions of the calls."""
    fractions = [fraction for _, fraction in seen]
    assert all(isinstance(fraction, float) for fraction in fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def table_of(count: int, rows_a_chunk: int = 10) -> pa.Table:
    """Return layers of many sizes, the biggest of several units of work."""
    sizes = [2**18 if row == count // 2 else 50 * row + 1 for row in range(count)]
    table = plain([f"n{row}" for row in range(count)], [np.ones(size) for size in sizes])
    return pa.Table.from_batches(table.to_batches(max_chunksize=rows_a_chunk))


@pytest.mark.parametrize("threads", [1, 2, None])
def test_called_once_a_layer(threads: int | None) -> None:
    table = table_of(50)
    seen, progress = recorder()
    result = quantize_batch_arrow(table, threads=threads, progress=progress)
    assert sorted(name for name, _ in seen) == sorted(table["layer_name"].to_pylist())
    assert_grows_to_one(seen)
    assert_same(result, quantize_batch_arrow(table))


def test_fraction_is_of_the_bytes() -> None:
    table = plain(["small", "big"], [np.ones(1000), np.ones(3000)])
    seen, progress = recorder()
    quantize_batch_arrow(table, threads=1, progress=progress)
    share = {"small": 0.25, "big": 0.75}
    assert seen[0][1] == pytest.approx(share[seen[0][0]])
    assert seen[1][1] == 1.0


def test_layers_without_weights_are_seen_too(layers: dict[str, np.ndarray]) -> None:
    seen, progress = recorder()
    quantize_batch_arrow(plain_layers(layers), progress=progress)
    assert sorted(name for name, _ in seen) == sorted(layers)
    assert_grows_to_one(seen)


def test_only_layers_without_weights() -> None:
    seen, progress = recorder()
    quantize_batch_arrow(plain(["a", "b"], [np.ones((0, 4)), []]), progress=progress)
    assert sorted(name for name, _ in seen) == ["a", "b"]
    assert_grows_to_one(seen)


def test_no_layers_no_calls() -> None:
    seen, progress = recorder()
    assert len(quantize_batch_arrow(plain([], []), progress=progress)) == 0
    assert seen == []


def test_skipped_layers_do_not_hold_the_end_back() -> None:
    table = plain(["a", "bad", "c"], [np.ones(500), np.full(5000, np.nan), np.ones(500)])
    seen, progress = recorder()
    with pytest.warns(UserWarning, match="'bad'"):
        quantize_batch_arrow(table, continue_on_error=True, progress=progress)
    assert {"a", "c"} <= {name for name, _ in seen}
    assert_grows_to_one(seen)


def test_dictionary_form() -> None:
    seen, progress = recorder()
    quantize_batch({"a": np.ones(9, np.float32), "b": np.ones(9, np.float32)}, progress=progress)
    assert sorted(name for name, _ in seen) == ["a", "b"]
    assert_grows_to_one(seen)


def test_source_of_unknown_length() -> None:
    seen, progress = recorder()
    source = OnlyStream(table_of(30, rows_a_chunk=4))
    quantize_batch_arrow(source, progress=progress)
    assert len(seen) == 30
    assert_grows_to_one(seen)


def test_stream_of_results() -> None:
    seen, progress = recorder()
    batches = numbered_batches(5)
    reader = quantize_stream(pa.Table.from_batches(batches), progress=progress)
    assert seen == []
    reader.read_next_batch()
    assert [name for name, _ in seen] == ["layer0"]
    reader.read_all()
    assert [name for name, _ in seen] == [f"layer{row}" for row in range(5)]
    assert_grows_to_one(seen)


# Mistakes


class ClumsyError(Exception):
    """What the callbacks of these tests raise."""


@pytest.mark.parametrize("threads", [1, 2])
def test_exception_becomes_a_warning(threads: int) -> None:
    def progress(*_: object) -> None:
        raise ClumsyError("out of paper")

    table = table_of(20)
    with pytest.warns(Warning, match="out of paper"):
        result = quantize_batch_arrow(table, threads=threads, progress=progress)
    assert_same(result, quantize_batch_arrow(table))


def test_exception_in_a_stream_becomes_a_warning() -> None:
    def progress(*_: object) -> None:
        raise ClumsyError("out of paper")

    table = pa.Table.from_batches(numbered_batches(3))
    with pytest.warns(Warning, match="out of paper"):
        result = quantize_stream(table, progress=progress).read_all()
    assert_same(result, quantize_batch_arrow(table, sort=False))


def test_callback_of_a_wrong_signature_becomes_a_warning() -> None:
    with pytest.warns(Warning, match="argument"):
        result = quantize_batch_arrow(plain(["a"], [[1.0]]), progress=lambda: None)
    assert len(result) == 1


def test_callback_may_quantize() -> None:
    inner: list[pa.Table] = []

    def progress(*_: object) -> None:
        inner.append(quantize_batch_arrow(plain(["inner"], [[1.0, 2.0]])))

    result = quantize_batch_arrow(plain(["a", "b"], [[1.0], [2.0]]), progress=progress)
    assert len(result) == 2
    assert [table["layer_name"].to_pylist() for table in inner] == [["inner"]] * 2


# The bar


def quietly(call: Callable[..., Any], **options: Any) -> Any:
    """Run a call that must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call(table_of(10), **options)


def test_bar_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    result = quietly(quantize_batch_arrow, progress=True)
    captured = capsys.readouterr()
    assert "100%" in captured.err
    assert captured.out == ""
    assert len(result) == 10


def test_bar_of_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    result = quietly(
        lambda table, **options: quantize_stream(table, **options).read_all(), progress=True
    )
    assert "%" in capsys.readouterr().err
    assert len(result) == 10


def test_no_bar_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    quietly(quantize_batch_arrow)
    quietly(quantize_batch_arrow, progress=None)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("call", ["table", "stream", "fit"])
def test_an_interrupt_in_it_stops_the_work(call: str) -> None:
    seen = []

    def interrupt(name: str, _: float) -> None:
        seen.append(name)
        raise KeyboardInterrupt

    calls = {
        "table": lambda: quantize_batch_arrow(table_of(50), progress=interrupt),
        "stream": lambda: quantize_stream(table_of(50).to_reader(), progress=interrupt).read_all(),
        "fit": lambda: Recipe.fit(table_of(50), 8, progress=interrupt),
    }
    with pytest.raises(KeyboardInterrupt):
        calls[call]()
    assert len(seen) == 1
