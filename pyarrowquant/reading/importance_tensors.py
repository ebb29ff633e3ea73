"""Files of importance as `calibrate` writes them: safetensors with two tensors for each layer.

One has a layer's name and the means, float32; the other, with COUNT behind the name, how many
inputs there were, int64, one number for each matrix.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.shapes import product
from pyarrowquant._core.version import version_problem
from pyarrowquant.reading.importance_kinds import KEY
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.opened import MappedFile, ReadFile
from pyarrowquant.reading.safetensors_header import read_header
from pyarrowquant.reading.strict_json import parse_any

SUFFIX = ".safetensors"
COUNT = ".count"
_VERSION = 1


@dataclass(frozen=True)
class Origin:
    """Where importance comes from.

    Attributes
    ----------
    texts : sequence of (str, str)
        The names of texts, and the SHA-256 of each.
    tokens : int
    windows : int
    """

    texts: Sequence[tuple[str, str]]
    tokens: int
    windows: int


def metadata_of(origin: Origin) -> dict[str, str]:
    """Return what the file's header says of its origin."""
    said = {
        "format_version": _VERSION,
        "texts": [{"name": name, "sha256": digest} for name, digest in origin.texts],
        "tokens": origin.tokens,
        "windows": origin.windows,
    }
    return {KEY: json.dumps(said)}


def read_importance_tensors(
    file: MappedFile | ReadFile, location: Location
) -> tuple[dict[str, npt.NDArray[np.float32]], str | None, int | None]:
    """Read a file: the importance of layers, the names of the texts, and the number of windows."""
    tensors, metadata = read_header(file, str(location))
    said = _said(metadata, location)
    counts = {tensor.name: product(tensor.shape) for tensor in tensors}
    values = {}
    for tensor in tensors:
        if tensor.name.endswith(COUNT):
            continue
        if tensor.dtype != "F32" or len(tensor.shape) != 1:
            raise ValueError(
                f"{location}: tensor {quoted(tensor.name)} is {tensor.dtype} of shape "
                f"{list(tensor.shape)}; importance is F32, a list of a number for each column"
            )
        data = file.buffer(tensor.begin, tensor.end - tensor.begin)
        means = np.frombuffer(data, "<f4").copy()
        matrices = counts.get(tensor.name + COUNT, 1)
        if matrices > 1 and means.size % matrices == 0:
            means = means.reshape(matrices, -1)
        values[tensor.name] = means
    texts = said.get("texts")
    names = [
        str(text.get("name"))
        for text in (texts if isinstance(texts, list) else ())
        if isinstance(text, dict)
    ]
    windows = said.get("windows")
    return values, ", ".join(names) or None, windows if isinstance(windows, int) else None


def _said(metadata: Mapping[str, str], location: Location) -> dict[str, Any]:
    try:
        said = parse_any(metadata[KEY])
        version = said["format_version"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{location} is no file of importance: its header has no {KEY}. "
            "`pyarrowquant calibrate` writes such files"
        ) from None
    if problem := version_problem(version, _VERSION):
        raise ValueError(f"{location} has {problem}")
    checked: dict[str, Any] = said
    return checked
