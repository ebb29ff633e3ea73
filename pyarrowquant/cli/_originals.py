"""The original weights of a model, looked up by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import pyarrowquant
from pyarrowquant._core.binary import bytes_at, is_binary
from pyarrowquant._core.nested import flat
from pyarrowquant._core.quoting import quoted
from pyarrowquant.conversion.rescaling import rescaled
from pyarrowquant.formats._format import Format
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.llama_cpp.folder import RESCALED_KEY, FolderModel
from pyarrowquant.reading.config import CONFIG, read_config
from pyarrowquant.reading.gguf import GgufModel
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_source
from pyarrowquant.reading.tensors import UndecodableTensor
from pyarrowquant.reading.turned import as_floats, turned_names
from pyarrowquant.rescaling.view import RESCALED


class Originals:
    """Layers of a model, read when they are asked for as far as its kind of file allows that.

    Parameters
    ----------
    source : str
        What `read_weights` takes.
    result : Model or None
        Whose names and rows layers are to have, and what was moved between them; None for the
        source's own.

    Attributes
    ----------
    result : Model or None
        The same, with names and rows of llama.cpp where only the source has those.
    """

    def __init__(self, source: str, result: Model | None = None) -> None:
        model = open_source(source)
        model.check_names(need_names=True)
        if result is not None:
            model, result = _alike(model, result)
        self.result = result
        self._schema = model.schema
        self._rows: dict[str, Callable[[], pa.RecordBatch]] = {}
        for name, read in model.layer_readers():
            self._rows[str(name)] = read
        self.undecodable = undecodable(model)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def errors(self, results: pa.RecordBatch, threads: int | None) -> list[dict[str, Any]]:
        """Measure the layers of a batch of results."""
        names = dict.fromkeys(results["layer_name"].to_pylist())
        rows = [self._rows[name]() for name in names if name in self._rows]
        weights = pa.Table.from_batches(rows, self._schema)
        decoded = pa.Table.from_batches([results])
        found: list[dict[str, Any]] = pyarrowquant.compare(
            weights, decoded, threads=threads
        ).to_pylist()
        return found

    def left_out(self, names: Iterable[str]) -> list[str]:
        """Names of the layers that are not among these."""
        return sorted(self._rows.keys() - set(names))

    def weights(self, name: str, columns: int, pieces: Iterable[slice]) -> Iterator[Any]:
        """Some rows of a layer at a time, as float32 matrices of so many columns."""
        row = self._rows[name]()
        column = row["weights"]
        raw = bytes_at(column, 0) if is_binary(column.type) else None
        for piece in pieces:
            start, stop = piece.start * columns, piece.stop * columns
            if raw is not None:
                part = _floats(raw, row["dtype"][0].as_py(), start, stop)
            else:
                values = flat(column[0])[start:stop]
                part = values.cast(pa.float32(), safe=False).to_numpy()
            yield part.reshape(-1, columns)


def is_of_llama_cpp(model: Model) -> bool:
    """Whether tensors have llama.cpp's names and rows; those of a GGUF file may have others."""
    if isinstance(model, GgufModel):
        return model.has_tokenizer
    return isinstance(model, FolderModel)


def as_llama_cpp(model: Model) -> Model:
    """Return a Hugging Face folder with llama.cpp's names and rows, any other model as it is."""
    return FORMATS["gguf"].viewed(model, None)


def _alike(original: Model, result: Model) -> tuple[Model, Model]:
    """Return both with the same names and rows."""
    if is_of_llama_cpp(original):
        return original, as_llama_cpp(result)
    target = _format_of(result)
    if target is None:
        return _turned_alike(original, result)
    if _is_rescaled(result):
        original = rescaled(original, target, "auto")
    names = [tensor.name for tensor in result.tensors or ()]
    return target.as_written(original, names), result


def _turned_alike(original: Model, result: Model) -> tuple[Model, Model]:
    """Return both with stacks of experts as floats, where one of them has them so."""
    return as_floats(original, _floats_of(result)), as_floats(result, _floats_of(original))


def _floats_of(model: Model) -> set[str]:
    """Return the names of tensors that lie as in a checkpoint of floats."""
    return {tensor.name for tensor in model.tensors or ()} - turned_names(model)


def _is_rescaled(model: Model) -> bool:
    """Whether factors were moved between the layers of a model before it was quantized."""
    if isinstance(model, GgufModel):
        return bool(model.header.value(RESCALED_KEY))
    return bool((model.config or {}).get(RESCALED))


def _format_of(model: Model) -> Format | None:
    """Return the format of a model whose tensors may have other names than those of its source."""
    if is_of_llama_cpp(model):
        return FORMATS["gguf"]
    config = {} if model.folder is None else read_config(model.folder.within(CONFIG))
    said = config.get("quantization_config")
    if isinstance(said, dict) and said.get("quant_method") == "compressed-tensors":
        return FORMATS["compressed-tensors"]
    return FORMATS["mlx"] if "quantization" in config else None


def undecodable(model: Model) -> dict[str, str]:
    """Names of tensors that cannot be decoded, and why."""
    return {
        tensor.name: tensor.problem
        for tensor in model.tensors or ()
        if isinstance(tensor, UndecodableTensor)
    }


def raw_floats(row: pa.RecordBatch, dtype: str) -> Any:
    """Weights of a row of raw bytes, in a dtype of numpy."""
    raw, code = bytes_at(row["weights"], 0), row["dtype"][0].as_py()
    assert raw is not None  # as no row of a model is null
    count = len(raw) // (4 if code == "F32" else 2)
    values = _floats(raw, code, 0, count)
    if dtype == "float32":
        return values
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype)
    if not np.isfinite(rounded[np.isfinite(values)]).all():
        name = row["layer_name"][0].as_py()
        raise ValueError(f"Layer {quoted(name)} has weights beyond {dtype}. Use --dtype float32")
    return rounded


def _floats(raw: npt.NDArray[np.uint8], dtype: str, start: int, stop: int) -> Any:
    """Widen raw little-endian values."""
    size = 4 if dtype == "F32" else 2
    part = raw[start * size : stop * size]
    if dtype == "BF16":
        return (part.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return part.view("<f4" if dtype == "F32" else "<f2").astype(np.float32)
