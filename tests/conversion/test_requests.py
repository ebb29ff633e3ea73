"""What is asked of a conversion is the same for all that can be asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import click
import numpy as np
import pytest

from pyarrowquant import convert, plan
from pyarrowquant.cli._show import as_options
from pyarrowquant.cli.quantize import quantize
from pyarrowquant.conversion.request import Request
from pyarrowquant.errors import ArgumentTypeError

PARAMETERS = inspect.signature(convert).parameters
OPTIONS = [option for option in quantize.params if isinstance(option, click.Option)]
OF_THE_COMMAND = {"dry_run", "as_json"}


@pytest.mark.parametrize("function", [convert, plan])
def test_a_request_has_the_parameters(function: Callable[..., Any]) -> None:
    hints = get_type_hints(function)
    del hints["return"]
    assert hints == get_type_hints(Request)
    assert list(hints) == [field.name for field in fields(Request)]


def test_a_plan_takes_what_a_conversion_does() -> None:
    assert inspect.signature(plan).parameters == PARAMETERS


def test_the_command_takes_what_a_conversion_does() -> None:
    names = {parameter.name for parameter in quantize.params}
    assert names - OF_THE_COMMAND == PARAMETERS.keys() - {"progress"}


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.name not in OF_THE_COMMAND], ids=str
)
def test_what_is_said_of_parameters_names_options(option: click.Option) -> None:
    assert as_options(f"leave out {option.name}=") == f"leave out {option.opts[0]}"


FLAGS = [name for name, hint in get_type_hints(Request).items() if hint is bool]
TEXTS = [name for name, hint in get_type_hints(Request).items() if hint in (str, str | None)]


@pytest.mark.parametrize("function", [convert, plan])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in FLAGS for value in ("no", 1, None)),
        *((name, value) for name in TEXTS for value in (["gguf"], 5)),
        ("importance", 5),
        ("progress", 5),
        ("source", 5),
        ("destination", 5),
    ],
)
def test_wrong_types_are_found_before_any_work(
    tmp_path: Path, function: Callable[..., Any], name: str, value: object
) -> None:
    """ "no" is no False: what is there would be replaced."""
    source, kept = tmp_path / "m.npz", tmp_path / "kept.parquet"
    np.savez(source, **{"a.weight": np.ones((64, 256), np.float32)})
    kept.write_bytes(b"kept")
    arguments = {"source": source, "destination": kept, name: value}
    with pytest.raises(ArgumentTypeError, match=f"^{name} must be "):
        function(**arguments)
    assert kept.read_bytes() == b"kept"
