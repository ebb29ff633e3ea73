"""The public names and signatures, and validation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import Batches, numbered_batches, plain, plain_layers

import pyarrowquant
from pyarrowquant import (
    compare,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    quantize_batch,
    quantize_batch_arrow,
    quantize_stream,
    validate_arrow_input,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")


# Names and signatures

PUBLIC = [
    "InternalError",
    "LayerError",
    "QuantizationError",
    "SkippedLayerWarning",
    "compare",
    "dequantize_batch_arrow",
    "numpy_to_arrow_table",
    "quantize_batch",
    "quantize_batch_arrow",
    "quantize_stream",
    "validate_arrow_input",
]
OPTIONS = {
    "group_size": None,
    "method": "rtn",
    "zero_point": None,
    "scale_dtype": None,
    "encoding": "int",
    "metrics": False,
    "threads": None,
    "progress": None,
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name(name: str) -> None:
    assert name in pyarrowquant.__all__
    assert inspect.getdoc(getattr(pyarrowquant, name))


def parameters(function: Callable[..., Any]) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    """Return the positional parameters with their defaults, and the keyword-only ones."""
    found = inspect.signature(function).parameters.values()
    keyword_only = {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}
    return [(p.name, p.default) for p in found if p.name not in keyword_only], keyword_only


@pytest.mark.parametrize(
    ("function", "first", "options"),
    [
        (quantize_batch_arrow, "table", {**OPTIONS, "sort": True}),
        (quantize_stream, "source", OPTIONS),
        (quantize_batch, None, OPTIONS),
    ],
)
def test_signature(
    function: Callable[..., Any], first: str | None, options: dict[str, Any]
) -> None:
    positional, keyword_only = parameters(function)
    assert positional[1:] == [("bit_width", None), ("continue_on_error", False)]
    assert first is None or positional[0] == (first, inspect.Parameter.empty)
    assert {name: keyword_only.get(name, "absent") for name in options} == options


def test_other_signatures() -> None:
    assert "sort" not in inspect.signature(quantize_stream).parameters
    assert parameters(dequantize_batch_arrow) == (
        [("result", inspect.Parameter.empty)],
        {"dtype": "float32", "threads": None},
    )
    assert parameters(compare) == (
        [("original", inspect.Parameter.empty), ("result", inspect.Parameter.empty)],
        {"threads": None},
    )
    assert parameters(validate_arrow_input) == ([("table", inspect.Parameter.empty)], {})
    assert len(parameters(numpy_to_arrow_table)[0]) == 1


@pytest.mark.parametrize("name", [name for name in PUBLIC if name[0].islower()])
def test_every_parameter_has_a_type(name: str) -> None:
    signature = inspect.signature(getattr(pyarrowquant, name))
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())


def test_package_is_typed() -> None:
    assert files("pyarrowquant").joinpath("py.typed").is_file()


# Validation


def test_validation_reads_no_data() -> None:
    source = Batches(numbered_batches(3))
    assert validate_arrow_input(source.reader()) is None
    assert source.pulled == 0


def test_validation_of_a_table_returns_none(layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    assert validate_arrow_input(table) is None
    assert validate_arrow_input(pl.from_arrow(table)) is None
    assert validate_arrow_input(plain(["a"], [[float("nan")]])) is None
