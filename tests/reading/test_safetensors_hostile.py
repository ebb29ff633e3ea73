"""Safetensors files that break the format: each is an error that says what is wrong.

Accepted is what the safetensors package accepts, but for a few oddities of its JSON reader: names
and fields that are there twice, a tensor or its dtype in an unusual form, dimensions of 2^63 and
more, more than 64 of them, and objects in fields that nobody reads that are nested deeper than 128.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from conftest import attempt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from pyarrowquant import quantize_stream, read_weights
from pyarrowquant.reading.safetensors_header import BITS

FEW = settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, an object or its text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(begin: int, end: int, dtype: str = "F32", shape: list[int] | None = None) -> Any:
    """A float32 tensor of one dimension, or what is said."""
    if shape is None:
        shape = [(end - begin) // 4]
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def problem_of(path: Path, data: bytes) -> str | None:
    """What read_weights says of the file, without its name; None if it is read."""
    path.write_bytes(data)
    try:
        table = read_weights(path, only_floats=False).read_all()
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert len(message) < 1000
        return message[len(f"{path}: ") :]
    length = 8 + int.from_bytes(data[:8], "little")
    assert b"".join(table["weights"].to_pylist()) == data[length:]
    return None


def reference_accepts(data: bytes) -> bool:
    try:
        safetensors.deserialize(data)
    except safetensors.SafetensorError:
        return False
    return True


EIGHT = bytes(8)
UNKNOWN = f"Known are {', '.join(BITS)}"

# What is wrong, the file, and the whole error.
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (
        b"",
        "the file has 0 bytes, a safetensors file has 8 for the length of its header, and a header",
    ),
    "header too long": (
        file_of(b"{}", length=100_000_001),
        "the length of the header is 100000001, the most allowed is 100000000. "
        "Is it a safetensors file?",
    ),
    "length of 2^64-1": (
        b"\xff" * 8 + b"{}",
        "the length of the header is 18446744073709551615, the most allowed is 100000000. "
        "Is it a safetensors file?",
    ),
    "header beyond the file": (
        file_of(b"{}", length=3),
        "the header has 3 bytes, the file has 2 after its first 8. Is it complete?",
    ),
    "no header": (
        file_of(b""),
        "the header is not valid JSON: Expecting value: line 1 column 1 (char 0)",
    ),
    "no JSON": (
        file_of(b"{x}"),
        "the header is not valid JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)",
    ),
    "an array": (file_of([]), "the header must be a JSON object, it is []"),
    "no UTF-8": (
        file_of(b'{"\xff": 1}'),
        "the header is not UTF-8: 'utf-8' codec can't decode byte 0xff in position 2: "
        "invalid start byte",
    ),
    "half a surrogate pair": (
        file_of(b'{"\\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'),
        "the header is not valid JSON: half of a surrogate pair",
    ),
    "NaN": (
        file_of(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 0]}}'),
        "the header is not valid JSON: NaN is no number of JSON",
    ),
    "nested": (
        file_of(b"[" * 100_000),
        "the header is not valid JSON: it is nested too deeply",
    ),
    "metadata": (file_of({"__metadata__": []}), "__metadata__ must be an object, it is []"),
    "metadata value": (
        file_of({"__metadata__": {"a": 1}}),
        "__metadata__ 'a' must be a string, it is 1",
    ),
    "no tensor": (
        file_of({"a": 1}),
        "tensor 'a' must be an object with dtype, shape, data_offsets: 1",
    ),
    "no dtype": (file_of({"a": {"shape": [], "data_offsets": [0, 4]}}), "tensor 'a' has no dtype"),
    "unknown dtype": (
        file_of({"a\nb": tensor(0, 8, "F33")}, EIGHT),
        f"tensor 'a\\nb' has dtype 'F33'. {UNKNOWN}",
    ),
    "dtype of another type": (
        file_of({"a": tensor(0, 8, ["F32"])}, EIGHT),  # type: ignore[arg-type]
        f"tensor 'a' has dtype ['F32']. {UNKNOWN}",
    ),
    "negative dimension": (
        file_of({"a": tensor(0, 8, shape=[-2])}, EIGHT),
        "tensor 'a' has shape [-2], which must be integers of 0 to 2^63-1",
    ),
    "true as dimension": (
        file_of({"a": tensor(0, 4, shape=[True])}, bytes(4)),
        "tensor 'a' has shape [True], which must be integers of 0 to 2^63-1",
    ),
    "fractional dimension": (
        file_of({"a": tensor(0, 8, shape=[2.0])}, EIGHT),  # type: ignore[list-item]
        "tensor 'a' has shape [2.0], which must be integers of 0 to 2^63-1",
    ),
    "minus zero": (
        file_of(b'{"a": {"dtype": "F32", "shape": [-0], "data_offsets": [0, 0]}}'),
        "tensor 'a' has shape [-0.0], which must be integers of 0 to 2^63-1",
    ),
    "one offset": (
        file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8]}}, EIGHT),
        "tensor 'a' has data_offsets [8], which must be two integers, not negative",
    ),
    "negative offset": (
        file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}, EIGHT),
        "tensor 'a' has data_offsets [-8, 0], which must be two integers, not negative",
    ),
    "offsets reversed": (
        file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, EIGHT),
        "tensor 'a' has data_offsets [8, 0], which end before they begin",
    ),
    "shape too large": (
        file_of({"a": tensor(0, 8, shape=[3])}, EIGHT),
        "tensor 'a': shape [3] of F32 has 12 bytes, data_offsets [0, 8] have 8",
    ),
    "2^64 bits": (
        file_of({"a": tensor(0, 8, shape=[2**59])}, EIGHT),
        f"tensor 'a': shape [{2**59}] of F32 has 2^64 bits and more",
    ),
    "2^66 elements times 0": (
        file_of({"a": tensor(0, 0, shape=[2**33, 2**33, 0])}),
        f"tensor 'a': shape [{2**33}, {2**33}, 0] of F32 has 2^64 bits and more",
    ),
    "half a byte": (
        file_of({"a": tensor(0, 2, "F4", [3])}, bytes(2)),
        "tensor 'a': shape [3] of F4 has 12 bits, which are no whole bytes",
    ),
    "overlap": (
        file_of({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)),
        "tensor 'b': data_offsets [4, 12] overlap the tensor before, which ends at 8",
    ),
    "the same bytes twice": (
        file_of({"a": tensor(0, 8), "b": tensor(0, 8)}, EIGHT),
        "tensor 'b': data_offsets [0, 8] overlap the tensor before, which ends at 8",
    ),
    "hole": (
        file_of({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12)),
        "tensor 'b': data_offsets [8, 12] leave a hole, what is before ends at 4",
    ),
    "hole at the start": (
        file_of({"a": tensor(4, 8)}, EIGHT),
        "tensor 'a': data_offsets [4, 8] leave a hole, what is before ends at 0",
    ),
    "beyond the file": (
        file_of({"a": tensor(0, 8), "b": tensor(8, 16)}, bytes(12)),
        "tensor 'b': data_offsets [8, 16] are beyond the data, which has 12 bytes. "
        "Is the file complete?",
    ),
    "more than the tensors": (
        file_of({"a": tensor(0, 8)}, bytes(9)),
        "the file has 9 bytes of data, its tensors have 8",
    ),
    "data without tensors": (
        file_of({}, bytes(9)),
        "the file has 9 bytes of data, its tensors have 0",
    ),
}

# What only this package refuses.
STRICTER: dict[str, tuple[bytes, str]] = {
    "a name twice": (
        file_of(
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
            b'"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
            EIGHT,
        ),
        "the header is not valid JSON: the key 'a' is there twice",
    ),
    "metadata twice": (
        file_of(b'{"__metadata__": {"a": "x", "a": "y"}}'),
        "the header is not valid JSON: the key 'a' is there twice",
    ),
    "a tensor as an array": (
        file_of({"a": ["F32", [2], [0, 8]]}, EIGHT),
        "tensor 'a' must be an object with dtype, shape, data_offsets: ['F32', [2], [0, 8]]",
    ),
    "dtype as an object": (
        file_of({"a": tensor(0, 8, {"F32": None})}, EIGHT),  # type: ignore[arg-type]
        f"tensor 'a' has dtype {{'F32': None}}. {UNKNOWN}",
    ),
    "65 dimensions": (
        file_of({"a": tensor(0, 4, shape=[1] * 65)}, bytes(4)),
        "tensor 'a' has 65 dimensions, the most allowed is 64",
    ),
    "a dimension of 2^63": (
        file_of({"a": tensor(0, 0, shape=[0, 2**63])}),
        f"tensor 'a' has shape [0, {2**63}], which must be integers of 0 to 2^63-1",
    ),
}

# What may look wrong, and is not.
VALID: dict[str, bytes] = {
    "no tensors": file_of({}),
    "spaces": file_of(b" \n{} \t "),
    "no metadata": file_of({"__metadata__": None}),
    "metadata": file_of({"__metadata__": {"a": "x", "": ""}}),
    "another field": file_of({"a": {**tensor(0, 8), "more": [-1, {"x": 1.5}]}}, EIGHT),
    "an empty name": file_of({"": tensor(0, 8)}, EIGHT),
    "an escaped name": file_of({"é\n\U0001f600": tensor(0, 8)}, EIGHT),
    "empty tensors": file_of(
        {"a": tensor(0, 0), "b": tensor(0, 8), "c": tensor(8, 8), "d": tensor(8, 8)}, EIGHT
    ),
    "0 times 2^60": file_of({"a": tensor(0, 0, shape=[0, 2**60])}),
    "not in order": file_of({"b": tensor(4, 8), "a": tensor(0, 4)}, EIGHT),
    "64 dimensions": file_of({"a": tensor(0, 4, shape=[1] * 64)}, bytes(4)),
    "scalar": file_of({"a": tensor(0, 4, shape=[])}, bytes(4)),
    **{
        dtype: file_of({"a": tensor(0, bits, dtype, [8])}, bytes(bits))
        for dtype, bits in BITS.items()
    },
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(path: Path, name: str) -> None:
    data, message = BROKEN[name]
    assert problem_of(path, data) == message
    assert not reference_accepts(data)


@pytest.mark.parametrize("name", STRICTER)
def test_what_only_this_package_refuses(path: Path, name: str) -> None:
    data, message = STRICTER[name]
    assert problem_of(path, data) == message
    assert reference_accepts(data)


@pytest.mark.parametrize("name", VALID)
def test_valid_files(path: Path, name: str) -> None:
    assert problem_of(path, VALID[name]) is None
    assert reference_accepts(VALID[name])


def test_long_values_are_shown_in_short(path: Path) -> None:
    message = problem_of(path, file_of({"a" * 10_000: tensor(0, 8, "x" * 10_000)}, EIGHT))
    assert message is not None
    assert re.fullmatch(r"tensor 'a{99}\.\.\. has dtype 'x{99}\.\.\.\. Known are .*", message)


# Mutations

SEED = save(
    {
        "model.a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(4, np.float16),
        "ids": np.arange(3),
        "empty": np.empty((0, 2), np.float32),
    },
    {"format": "np"},
)
HEADER_END = 8 + int.from_bytes(SEED[:8], "little")


def check_like_reference(path: Path, data: bytes) -> None:
    """Both accept, or both refuse, but for what is documented."""
    problem = problem_of(path, data)
    if reference_accepts(data):
        stricter = ("there twice", "must be an object with", "2^63-1")
        assert problem is None or any(text in problem for text in stricter), problem
        if problem is None:
            names = {name for name, _ in safetensors.deserialize(data)}
            table = read_weights(path, only_floats=False).read_all()
            assert set(table["layer_name"].to_pylist()) == names
    else:
        assert problem is not None


@FEW
@given(
    changes=st.lists(
        st.tuples(st.integers(0, HEADER_END - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
)
def test_changed_bytes(path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(SEED)
    for position, value in changes:
        data[position] = value
    check_like_reference(path, bytes(data))


@FEW
@given(
    position=st.integers(8, HEADER_END - 1),
    text=st.text('0123456789[]{}:,"-.eE aFI\\u', max_size=4),
    removed=st.integers(0, 4),
)
def test_changed_header_of_right_length(path: Path, position: int, text: str, removed: int) -> None:
    header = SEED[8:position] + text.encode() + SEED[position + removed : HEADER_END]
    check_like_reference(path, file_of(header, SEED[HEADER_END:]))


@FEW
@given(kept=st.integers(0, len(SEED)), more=st.binary(max_size=3))
def test_cut_and_extended_files(path: Path, kept: int, more: bytes) -> None:
    check_like_reference(path, SEED[:kept] + more)


sizes = st.one_of(
    st.integers(0, 32),
    st.sampled_from([-1, 2**31, 2**32, 2**53, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64]),
)
tensors = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*BITS, "F31", ""]),
        "shape": st.lists(sizes, max_size=3),
        "data_offsets": st.lists(sizes, min_size=1, max_size=3),
    }
)


@FEW
@given(
    header=st.dictionaries(st.text(max_size=3), tensors, max_size=3),
    data=st.binary(max_size=64),
)
def test_headers_of_any_values(path: Path, header: dict[str, Any], data: bytes) -> None:
    check_like_reference(path, file_of(header, data))


@FEW
@given(parts=st.lists(st.tuples(st.sampled_from([*BITS]), st.integers(0, 9)), max_size=5))
def test_right_sizes_and_offsets(path: Path, parts: list[tuple[str, int]]) -> None:
    """Most of these are valid, where most of the above are not."""
    header, end = {}, 0
    for i, (dtype, count) in enumerate(parts):
        begin, end = end, end + count * BITS[dtype] // 8
        header[f"t{i}"] = tensor(begin, end, dtype, [count])
    check_like_reference(path, file_of(header, bytes(end)))


@settings(FEW, max_examples=100)
@given(changes=st.lists(st.tuples(st.integers(8, len(SEED) - 1), st.integers(0, 255)), max_size=2))
def test_what_is_read_can_be_quantized_or_is_an_error(
    path: Path, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(SEED)
    for position, value in changes:
        data[position] = value
    path.write_bytes(data)
    result = attempt(lambda: quantize_stream(read_weights(path)).read_all())
    assert isinstance(result, ValueError) or result.num_rows <= 4
