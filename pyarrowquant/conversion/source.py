"""A model of this machine or elsewhere, by its name."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.conversion.result_files import is_table, schema_of, tables_in
from pyarrowquant.errors import users_level
from pyarrowquant.reading.config import CONFIG, is_of_mlx, quantizations_in, read_config
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model
from pyarrowquant.reading.onnx import OnnxModel
from pyarrowquant.reading.tensors import CodedTensor, Tensor, bytes_in_batch
from pyarrowquant.recipes.planned import PlannedLayer
from pyarrowquant.recipes.recipe import Recipe

_EXPERT = re.compile(r"\.experts\.")  # which bitsandbytes has as floats alone, and does not name


def local_path(source: str) -> str:
    """Return the path of a source of this machine, also of a URI; of another the URI."""
    location = locate(source, None)
    return location.path if location.is_local else source


def model_folder(path: str) -> Path | None:
    """Return the folder of a Hugging Face model, if the path is one, or its index."""
    place = Path(path)
    folder = place.parent if place.name.endswith(".index.json") else place
    return folder if (folder / "config.json").is_file() else None


def convertible(model: Model) -> Model:
    """Return the model as a conversion reads it; refuse one of codes that none decodes."""
    if isinstance(model, OnnxModel) and model.packed:
        if not model.layers:
            raise ValueError(
                f"{model.location} is quantized already: its layers are those of MatMulNBits. Give "
                "the model with float weights, or decode it first: pyarrowquant dequantize"
            )
        model = model.without_codes()  # which stay as they are
    model.refuse_quantized()
    _refuse_contradiction(model)
    return model


def _refuse_contradiction(model: Model) -> None:
    """Refuse a folder whose config.json says that it is quantized, and most of it is not."""
    said = {} if model.folder is None else read_config(model.folder.within(CONFIG))
    key, quantization = next(quantizations_in(said), (None, None))
    if key is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    spared = list(_texts(quantization))  # names of modules, as each format has them
    usual = Recipe.preset("text")  # embeddings and heads are spared without a word
    if not any(isinstance(tensor, CodedTensor) for tensor in model.tensors or ()):
        warnings.warn(
            f"'{model.folder}/{CONFIG}' has {key}, and none of the weights are quantized: it is "
            "taken as left over, and left out",
            UserWarning,
            stacklevel=users_level(),
        )
        return
    if is_of_mlx(quantization):  # which does not say what it spares
        return
    plain = [
        tensor
        for tensor in model.tensors or ()
        if len(tensor.shape) == 2
        and not isinstance(tensor, CodedTensor)
        and not usual.decisions.outcome(tensor.name, tensor.shape)[0].skip
        and not any(_names(text, tensor.name.removesuffix(".weight")) for text in spared)
        and not (method == "bitsandbytes" and _EXPERT.search(tensor.name))
    ]
    coded = [tensor for tensor in model.tensors or () if isinstance(tensor, CodedTensor)]
    if sum(map(_weights, plain)) < sum(map(_weights, coded)):
        return
    raise ValueError(
        f"'{model.location}' contradicts itself: its config.json has {key}, but {len(plain)} "
        f"matrices that this does not spare are floats, such as {quoted(plain[0].name)}, and only "
        f"{len(coded)} are quantized. Give the file of its weights itself, which is then decoded, "
        "or the model with float weights"
    )


def _texts(value: Any) -> Iterator[str]:
    """All texts of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _names(text: str, module: str) -> bool:
    """Whether a text means a module: a part of its name, or a regular expression after "re:"."""
    if not text.startswith("re:"):
        return text in module
    try:
        return re.match(text[3:], module) is not None
    except re.error:
        return False


def _weights(tensor: Tensor) -> int:
    return math.prod(tensor.shape)


def decoded_from(model: Model, layers: Iterable[PlannedLayer]) -> dict[str, int]:
    """Count the layers to quantize that reading decodes, by what that is from."""
    wanted = {layer.name for layer in layers if layer.settings is not None}
    found = Counter(
        tensor.coding
        for tensor in model.tensors or ()
        if isinstance(tensor, CodedTensor) and tensor.name in wanted
    )
    return dict(found.most_common())


def weights_bytes(model: Model) -> int | None:
    """Return how many bytes of weights reading gives; None where that is not known before."""
    wanted = [tensor for tensor in model.all_tensors if model.can_quantize(tensor)]
    return sum(map(bytes_in_batch, wanted)) if wanted else None


def local_files(source: str | Path) -> list[Path]:
    """Return a source of this machine, and all files that belong to it."""
    source = Path(source)
    if source.is_dir() and (tables := tables_in(source)) and is_result(str(source)):
        return [source, *tables]
    if not source.exists() or is_result(str(source)):
        return [source]
    return files_of(open_model(locate(source, None)))


def is_local(model: Model) -> bool:
    """Whether a model lies on this machine."""
    return model.location.is_local


def files_of(model: Model) -> list[Path]:
    """Return a model of this machine, and all files that belong to it."""
    if not is_local(model):
        return []
    source = Path(model.location.path)
    files = [Path(file.path) for file in model.files]
    folder = source if source.is_dir() else source.parent
    return [source, *files, *folder.glob("*.index.json"), folder / "config.json"]


def source_bytes(model: Model) -> int | None:
    """Return the size of a local source; None where it is elsewhere."""
    if not is_local(model):
        return None
    return sum(os.stat(file.path).st_size for file in model.files)


def size_of(source: str) -> int | None:
    """Return the bytes of the files of weights or results; None of what is elsewhere."""
    if is_result(source):
        return sum(file.stat().st_size for file in local_files(source) if file.is_file())
    return source_bytes(open_model(locate(source, None)))


def is_result(path: str) -> bool:
    """Whether a local file, or a folder of them, has packed codes rather than weights.

    The folder of a model has weights, whatever has been written into it.
    """
    place = Path(path)
    if model_folder(path) == place:
        return False
    tables = [place] if place.is_file() else tables_in(place) if place.is_dir() else []
    return (
        bool(tables)
        and is_table(tables[0])
        and any("quantized_data" in schema_of(table).names for table in tables)
    )
