"""Small files that ask for endless work or memory: each is refused at once, by what is wrong.

Without the bound, each of them takes many seconds or a gigabyte, or ends in another exception.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from child import run_child
from onnx import helper, numpy_helper

from pyarrowquant import Recipe, Rule, read_weights
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.shapes import product
from pyarrowquant.formats import write_onnx
from pyarrowquant.reading.config import read_config
from pyarrowquant.reading.location import locate

LARGE = 2**63 - 1


def safetensors_of(header: str, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + data


def with_shape(shape: str) -> bytes:
    tensor = f'{{"dtype": "F32", "shape": [{shape}], "data_offsets": [0, 4]}}'
    return safetensors_of(f'{{"a": {tensor}}}', bytes(4))


def npy(header: str, length: int | None = None) -> bytes:
    size = len(header) if length is None else length
    return b"\x93NUMPY\x02\x00" + size.to_bytes(4, "little") + header.encode()


def npz(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def overlapping_npz() -> bytes:
    """Two entries of the directory, both with the bytes of all that is before it."""
    text = "".join(map(chr, range(32, 127))) * 2
    data = bytearray(npz(("a.npy", npy(text)), ("b.npy", npy(text))))
    directory = data.index(b"PK\1\2")
    for at in (directory, data.index(b"PK\1\2", directory + 1)):
        data[at + 20 : at + 24] = directory.to_bytes(4, "little")
    return bytes(data)


def message_of(number: int, data: bytes) -> bytes:
    """A field of protobuf with bytes."""
    length, size = len(data), b""
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + data


def onnx_of(tensor: Any) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [], [], [tensor]
    )
    model: bytes = helper.make_model(graph).SerializeToString()
    return model


NO_JSON = "is not valid JSON: it is nested too deeply"
NESTED_900 = "[" * 900 + "]" * 900

# The file, how to make it, and the error, which follows on the name of the file.
FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "dimensions in safetensors": (
        "m.safetensors",
        lambda: with_shape("1," * 1_000_000 + "1"),
        ": tensor 'a' has 1000001 dimensions, the most allowed is 64",
    ),
    "nested safetensors": (
        "m.safetensors",
        lambda: safetensors_of(f'{{"a": {NESTED_900}}}'),
        f": the header {NO_JSON}",
    ),
    "nested behind quotes": (
        "m.safetensors",
        lambda: safetensors_of(rf'{{"a\"]]\\": "[{{", "b": {NESTED_900}}}'),
        f": the header {NO_JSON}",
    ),
    "nested index": (
        "m.safetensors.index.json",
        lambda: f'{{"weight_map": {NESTED_900}}}'.encode(),
        f" {NO_JSON}",
    ),
    "dimensions in npz": (
        "m.npz",
        lambda: npz(
            (
                "a.npy",
                npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9,' * 4000})}}"),
            )
        ),
        ": array 'a' has 4000 dimensions, the most allowed is 64",
    ),
    "huge shape in npz": (
        "m.npz",
        lambda: npz(
            (
                "a.npy",
                npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({f'{LARGE},' * 9})}}"),
            )
        ),
        f": array 'a': shape {quoted([LARGE] * 9)} of <f4 has 2^64 bits and more",
    ),
    "true as a dimension in npz": (
        "m.npz",
        lambda: npz(
            ("a.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}") + bytes(4))
        ),
        ": array 'a' has shape [True], beyond 0 to 2^63-1",
    ),
    "header of npz": (
        "m.npz",
        lambda: npz(("a.npy", npy(" " * 10_000_000))),
        ": array 'a' cannot be read: its header has 10000000 bytes, the most allowed is 10000",
    ),
    "nested npz": (
        "m.npz",
        lambda: npz(("a.npy", npy("-" * 9_990 + "1"))),
        ": array 'a' cannot be read: ",
    ),
    "overlapping npz": (
        "m.npz",
        overlapping_npz,
        ": its arrays overlap: they have ",
    ),
    "nodes": (
        "m.onnx",
        lambda: message_of(7, b"\x0a\x00" * 1_000_001),
        ": the model has 1000001 nodes and attributes or more, the most allowed is 1000000",
    ),
    "attributes": (
        "m.onnx",
        lambda: message_of(7, message_of(1, b"\x2a\x00" * 1_000_000)),
        ": the model has 1000001 nodes and attributes or more, the most allowed is 1000000",
    ),
    "huge shape in onnx": (
        "m.onnx",
        lambda: onnx_of(
            onnx.TensorProto(name="w", data_type=1, dims=[LARGE, LARGE], raw_data=bytes(4))
        ),
        f": tensor 'w': shape [{LARGE}, {LARGE}] has 2^64 bits and more",
    ),
}

TAG = "Recipe is not YAML: a number, truth value or date cannot be read: "
# The suffix, how to make it, and the error.
RECIPES: dict[str, tuple[str, Callable[[], str], str]] = {
    "nested JSON": (
        ".json",
        lambda: f'{{"rules": {NESTED_900}}}',
        "Recipe is not JSON: it is nested too deeply",
    ),
    "digits in JSON": (
        ".json",
        lambda: f'{{"name": {"9" * 5000}}}',
        "Recipe is not JSON: Exceeds the limit",
    ),
    "a number beyond float64": (
        ".json",
        lambda: json.dumps({"expected": {"bits_per_weight": 10**400}}),
        f"Recipe: expected: bits_per_weight 1{'0' * 99}... is beyond a float64",
    ),
    "a value that is huge": (
        ".json",
        lambda: json.dumps({"rules": [[1] * 1_000_000]}),
        f"Recipe rule 1 must be a dict, got list: [{'1, ' * 33}...",
    ),
    "a nested regex": (
        ".json",
        lambda: json.dumps({"rules": [{"regex": "(" * 5000 + ")" * 5000}]}),
        f"Recipe rule 1 ('{'(' * 98}...): regex '{'(' * 99}... is no regular expression: it is "
        "nested too deeply",
    ),
    "flow of YAML": (
        ".yaml",
        lambda: "rules: " + "[" * 900,
        "Recipe is not YAML that is read: line 1 is nested more than 128 deep",
    ),
    "blocks of YAML": (
        ".yaml",
        lambda: "- " * 100_000,
        "Recipe is not YAML that is read: line 1 is nested more than 128 deep",
    ),
    "timestamp": (".yaml", lambda: "name: !!timestamp x", f"{TAG}AttributeError: "),
    "truth value": (".yaml", lambda: "name: !!bool x", f"{TAG}KeyError: 'x'"),
    "date": (".yaml", lambda: "name: 2001-99-99", f"{TAG}ValueError: month must be in 1..12"),
    "base 60": (
        ".yaml",
        lambda: "name: 1" + ":00" * 300_000,
        "Recipe is not YAML that is read: line 1 has a value of 900001 characters, the most "
        "allowed is 10000",
    ),
    "aliases of aliases": (
        ".yaml",
        lambda: (
            "rules:\n- &a0 [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
        ),
        "Recipe is not YAML that is read: line 7 comes to 207596 values, aliases counted as what "
        "they stand for; the most allowed is 200000",
    ),
    "aliases of rules": (
        ".yaml",
        lambda: f"rules:\n- &a {{match: [{'x, ' * 10_000}]}}\n" + "- *a\n" * 10_000,
        "Recipe is not YAML that is read: line 21 comes to 200063 values",
    ),
    "merges of merges": (
        ".yaml",
        lambda: (
            "a0: &a0 {x: 1}\n"
            + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 30))
        ),
        "Recipe is not YAML that is read: line 16 comes to 294878 values",
    ),
    "an alias of itself": (
        ".yaml",
        lambda: "rules: &a [*a]",
        "Recipe is not YAML that is read: line 1 has the alias *a within its anchor",
    ),
    "a long number": (
        ".yaml",
        lambda: f"rules: [{{bit_width: 0x{'f' * 9000}}}]",
        f"Recipe rule 1: bit_width 0x{'f' * 98}... is beyond 64 bits",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path: Path, name: str) -> None:
    file_name, make, problem = FILES[name]
    path = tmp_path / file_name
    path.write_bytes(make())
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}{problem}')}"):
        read_weights(path)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(tmp_path: Path, name: str) -> None:
    suffix, make, problem = RECIPES[name]
    path = tmp_path / f"r{suffix}"
    path.write_text(make())
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(f'{path}: {problem}')}"):
        Recipe.load(path)


def test_a_nested_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"a": {NESTED_900}}}')
    text = f"'{path}' is not valid JSON: it is nested too deeply"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        read_config(locate(path, None))


def test_a_recipe_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=f"^Recipe file {str(path)!r} is not UTF-8: "):
        Recipe.load(path)


def test_a_recipe_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b" " * (2**24 + 1))
    text = f"Recipe file {str(path)!r} has more than 16777216 bytes, the most allowed"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Recipe.load(path)


def test_aliases_that_are_of_use(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("rules:\n- &a {match: x, bit_width: 4}\n- {<<: *a, match: y}\n- *a\n")
    first, second = Rule("x", bit_width=4), Rule("y", bit_width=4)
    assert Recipe.load(path) == Recipe([first, second, first])


def test_a_recipe_of_all_layers_of_a_large_model(tmp_path: Path) -> None:
    recipe = Recipe([Rule([f"model.layers.{i}.mlp.experts.weight" for i in range(100_000)])])
    for suffix in (".json", ".yaml"):
        recipe.save(tmp_path / f"r{suffix}")
        assert Recipe.load(tmp_path / f"r{suffix}") == recipe


def test_dimensions_of_what_an_onnx_model_keeps(tmp_path: Path) -> None:
    """Its size takes minutes where all of them are multiplied."""
    many = onnx.TensorProto(name="w", data_type=1, dims=[LARGE] * 250_000, data_location=1)
    many.external_data.add(key="location", value="data")
    model = onnx.load_from_string(
        onnx_of(numpy_helper.from_array(np.ones((8, 8), np.float32), "w"))
    )
    model.graph.node.add(op_type="Constant", output=["v"]).attribute.add(name="value").t.CopyFrom(
        many
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "data").write_bytes(bytes(8))
    text = f"{path}: tensor 'w' has 250000 dimensions, the most allowed is 64"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        write_onnx(None, tmp_path / "q.onnx", model=path)


def test_many_bodies_share_the_names_around_them(tmp_path: Path) -> None:
    """A copy of the names for each body would be a billion of them."""
    weight = b"\x08\x01\x08\x01\x10\x01"
    tensors = b"".join(message_of(5, weight + message_of(8, b"%d" % i)) for i in range(30_000))
    node = message_of(1, message_of(5, b"\x32\x00"))
    path = tmp_path / "m.onnx"
    path.write_bytes(message_of(7, tensors + node * 30_000))
    run_child(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))  # it takes one, or minutes
        try:
            pyarrowquant.read_weights({str(path)!r})
        except ValueError as error:
            assert "no MatMul or Gemm" in str(error), error
        else:
            raise AssertionError("is read")
        """
    )


@pytest.mark.parametrize(
    "value",
    [
        [],
        (),
        (1,),
        (1, "a"),
        {},
        {"a": [1, {"b": (2.5, None)}], 3: b"x"},
        "it's",
        True,
        2**64,
    ],
)
def test_short_values_are_shown_as_they_are(value: object) -> None:
    assert quoted(value) == repr(value)


def test_long_values_are_cut() -> None:
    nested: Any = 1
    for _ in range(100_000):
        nested = [nested]
    assert quoted(nested) == "[" * 100 + "..."
    assert quoted([1] * 10**6) == repr([1] * 100)[:100] + "..."
    assert quoted("a" * 10**6) == "'" + "a" * 99 + "..."
    assert quoted(2**10**6) == "0x1" + "0" * 97 + "..."
    endless: list[Any] = []
    endless.append(endless)
    assert quoted(endless) == "[" * 100 + "..."


def test_products_stop_where_they_are_beyond_all_bounds() -> None:
    assert product([]) == 1
    assert product([3, 0, 5]) == 0
    assert product([2**32, 2**31]) == 2**63
    for sizes in ([LARGE] * 10**6, [2**64] * 10**6, [-LARGE] + [2] * 10**6):
        assert 2**64 <= abs(product(sizes)) < 2**128
