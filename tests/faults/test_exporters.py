"""Producers of Arrow data that are wrong about it: never a crash."""

from __future__ import annotations

from pathlib import Path

import exporters
import pyarrow as pa
import pytest
from attempts import survey
from c_arrays import ArrayExporter, StreamExporter
from columns import sound

from pyarrowquant import quantize_batch_arrow, quantize_stream


@pytest.mark.parametrize("use", [*exporters.USES, *exporters.RESULT_USES])
def test_no_wrong_table_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    monkeypatch.chdir(tmp_path)
    step = {"quantize": 1, "kept": 9}.get(use, 1 if use in exporters.RESULT_USES else 5)
    count, wrong = survey("exporters", tmp_path / "log", use=use, step=step)
    assert count > 600
    assert wrong == []


@pytest.mark.parametrize("what", sound())
def test_sound_tables_are_quantized(what: str) -> None:
    table = sound()[what]
    result = quantize_batch_arrow(ArrayExporter(table), group_size=8)
    assert result["layer_name"].to_pylist() == ["a name of more than 12 bytes", "first"]
    assert result.equals(quantize_batch_arrow(StreamExporter(table, [table]), group_size=8))


def test_struct_that_is_longer_than_its_columns() -> None:
    table = sound()["weights +l f"]
    table.length = 5
    with pytest.raises(ValueError, match="'layer_name' is corrupt: it has 2 rows, the table 5"):
        quantize_batch_arrow(ArrayExporter(table))


@pytest.mark.parametrize("use", [quantize_batch_arrow, lambda s: quantize_stream(s).read_all()])
def test_streams_that_fail(use: object) -> None:
    table, other = sound()["weights +l f"], sound()["weights z"]
    assert callable(use)
    for codes in ((5, 0), (0, 5), (22, 0), (0, 22)):  # EIO, EINVAL
        with pytest.raises((OSError, ValueError), match="disk on fire"):
            use(StreamExporter(table, [table], codes))
        with pytest.raises((OSError, ValueError)):
            use(StreamExporter(table, [table], codes, text=None))
    with pytest.raises(ValueError, match=r"(?i)children|column"):
        use(StreamExporter(table, [table, other]))
    with pytest.raises((ValueError, pa.ArrowException)):
        use(StreamExporter(table, [table], missing="release"))
