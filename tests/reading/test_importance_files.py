"""Files of importance as llama-imatrix writes them, of both kinds, and damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pyarrow as pa
import pytest
from gguf_models import imatrix, written

from pyarrowquant import read_importance

RNG = np.random.default_rng(7)


def entry(name: bytes, values: np.ndarray, calls: int = 4) -> bytes:
    count = struct.pack("<ii", calls, len(values))
    return struct.pack("<i", len(name)) + name + count + values.astype("<f4").tobytes()


def listed(*entries: bytes, count: int | None = None, end: bytes = b"") -> bytes:
    return struct.pack("<i", len(entries) if count is None else count) + b"".join(entries) + end


def test_sums_and_counts(tmp_path: Path) -> None:
    dense, experts = RNG.random(64) * 100, RNG.random((3, 32)) * 100
    path = imatrix(
        tmp_path / "i.gguf",
        {
            "blk.0.attn_q.weight": (dense, np.array([8.0])),
            "blk.0.ffn_up_exps.weight": (experts, np.array([2.0, 0.0, 5.0])),
        },
        tensors={"blk.0.attn_q.weight.in_sum": np.ones((1, 64), np.float32)},
    )
    table = read_importance(path)
    assert table.schema == pa.schema(
        [("layer_name", pa.string()), ("importance", pa.list_(pa.float32()))]
    )
    found = {row["layer_name"]: np.float32(row["importance"]) for row in table.to_pylist()}
    assert list(found) == ["blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight"]
    assert np.array_equal(found["blk.0.attn_q.weight"], np.float32(dense) / np.float32(8))
    each = found["blk.0.ffn_up_exps.weight"].reshape(3, 32)
    assert np.array_equal(each[0], np.float32(experts[0]) / np.float32(2))
    assert (each[1] == 1).all()  # an expert that had no input
    assert np.array_equal(each[2], np.float32(experts[2]) / np.float32(5))


@pytest.mark.parametrize("end", [b"", struct.pack("<i", 9), struct.pack("<ii", 9, 3) + b"abc"])
def test_lists_of_before(tmp_path: Path, end: bytes) -> None:
    values = RNG.random(32)
    data = listed(entry(b"a", values), entry("ä".encode(), values[:3], calls=0), end=end)
    (tmp_path / "i.dat").write_bytes(data)
    found = read_importance(tmp_path / "i.dat").to_pylist()
    assert [row["layer_name"] for row in found] == ["a", "ä"]
    assert found[0]["importance"] == (np.float32(values) / np.float32(4)).tolist()
    assert found[1]["importance"] == np.float32(values[:3]).tolist()


VALUES = np.ones(4)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "its number of layers needs 4 bytes, 0 are left"),
        (listed(), "its number of layers is 0, it must be at least 1"),
        (listed(count=-3), "its number of layers is -3"),
        (listed(count=2**31 - 1), "the length of the name of layer 1 of 2147483647 needs"),
        (listed(entry(b"a", VALUES), count=2), "the name of layer 2 of 2 needs 4 bytes, 0 are"),
        (listed(struct.pack("<i", -1)), "the length of the name of layer 1 of 1 is -1"),
        (listed(struct.pack("<i", 2**30)), "the name of layer 1 of 1 needs 1073741824 bytes"),
        (listed(entry(b"\xff", VALUES)), "the name of layer 1 of 1 is not UTF-8"),
        (listed(entry(b"a", VALUES, calls=-1)), "the inputs of layer 'a' is -1"),
        (listed(entry(b"a", VALUES[:0])), "the values of layer 'a' is 0"),
        (listed(entry(b"a", VALUES)[:-1]), "the values of layer 'a' needs 16 bytes, 15 are left"),
        (listed(entry(b"a", VALUES), entry(b"a", VALUES)), "layer 'a' is there twice"),
        (listed(entry(b"a", VALUES * np.nan)), "the importance of 'a' is nan at index 0"),
        (listed(entry(b"a", VALUES * np.inf)), "the importance of 'a' is inf at index 0"),
        (listed(entry(b"a", -VALUES)), "the importance of 'a' is -0.25 at index 0"),
        (listed(entry(b"a", VALUES), end=b"\0\0"), "its number of chunks needs 4 bytes, 2 are"),
    ],
)
def test_damaged_lists(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(data)
    with pytest.raises(ValueError) as raised:  # noqa: PT011, the text is looked at below
        read_importance(path)
    assert text in str(raised.value)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_gguf_of_another_kind(tmp_path: Path) -> None:
    sums, counts = np.ones((2, 32), np.float32), np.ones((2, 1), np.float32)
    with pytest.raises(ValueError, match=r"general.type None, not 'imatrix'"):
        read_importance(written(tmp_path / "m.gguf", {"a.weight": sums}))
    codes = gguf.quants.quantize(sums, gguf.GGMLQuantizationType.Q8_0)
    model = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    model.add_type("model")
    model.add_tensor("a.weight", codes, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    model.write_header_to_file()
    model.write_kv_data_to_file()
    model.write_tensors_to_file()
    model.close()
    with pytest.raises(ValueError, match=r"general.type 'model', not 'imatrix': .* calibrate"):
        read_importance(tmp_path / "q.gguf")
    with pytest.raises(ValueError, match=r"is there without its .counts"):
        read_importance(imatrix(tmp_path / "a.gguf", {}, tensors={"a.in_sum2": sums}))
    with pytest.raises(ValueError, match=r"'a.counts' is there without its .in_sum2"):
        read_importance(imatrix(tmp_path / "b.gguf", {}, tensors={"a.counts": counts}))
    wrong = {"a.in_sum2": sums, "a.counts": np.ones((5, 1), np.float32)}
    with pytest.raises(ValueError, match=r"shape \[2, 32\], its .counts \[5, 1\]: they must be"):
        read_importance(imatrix(tmp_path / "c.gguf", {}, tensors=wrong))
    with pytest.raises(ValueError, match=r"the importance of no layer"):
        read_importance(imatrix(tmp_path / "d.gguf", {}, tensors={"x": sums}))
    bad = {"a": (sums, np.array([1.0, -1.0]))}
    with pytest.raises(ValueError, match=r"the importance of 'a.counts' is -1.0 at index 1"):
        read_importance(imatrix(tmp_path / "e.gguf", bad))
    with pytest.raises(ValueError, match=r"is a folder"):
        read_importance(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_importance(tmp_path / "none.dat")


def test_changed_files_are_value_errors(tmp_path: Path) -> None:
    layers = {"blk.0.attn_q.weight": (RNG.random(32), np.array([8.0]))}
    whole = imatrix(tmp_path / "i.gguf", layers).read_bytes()
    path = tmp_path / "x.gguf"
    said = []
    for _ in range(200):
        data = bytearray(whole[: RNG.integers(4, len(whole) + 1)])
        for at in RNG.integers(4, len(data) + 1, 3):
            if at < len(data):
                data[at] = RNG.integers(256)
        path.write_bytes(bytes(data))
        try:
            read_importance(path)
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 100
    assert all(text.startswith(str(path)) for text in said)
