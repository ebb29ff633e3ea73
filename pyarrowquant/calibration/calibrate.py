"""`calibrate`: the importance of a model's columns, from texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyarrowquant._core import arguments
from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.calibration.names import folder_names
from pyarrowquant.calibration.texts import Text, texts_in
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.formats._safetensors import Entry, write_tensors
from pyarrowquant.reading.config import CONFIG, quantization_in
from pyarrowquant.reading.importance_tensors import COUNT, SUFFIX, Origin, metadata_of
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model

_Path = str | os.PathLike[str]
_USUAL_TOKENS = 32_768
_USUAL_CONTEXT = 512
_LEAST_TOKENS = 256  # fewer say little about thousands of columns


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` has measured.

    Attributes
    ----------
    destination : Path
    layers : int
        How many layers have an importance.
    unused : tuple of str
        Matrices of the model that no input came to, such as experts that no token was sent to.
    tokens : int
        How many the model was run on.
    texts : tuple of str
        The names of the texts.
    """

    destination: Path
    layers: int
    unused: tuple[str, ...]
    tokens: int
    texts: tuple[str, ...]


def calibrate(
    model: _Path,
    destination: _Path,
    texts: Sequence[_Path] = (),
    *,
    tokens: int = _USUAL_TOKENS,
    context: int = _USUAL_CONTEXT,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Calibration:
    """Run a model on text, and write how large the inputs of its layers are.

    For each column of each linear layer, and of each expert, this is the mean of the squares of
    what it is multiplied with: the `importance` of `quantize_batch_arrow` and `convert`. Method
    "mse" then makes errors small where they matter to the model. Needs the extra
    ``pyarrowquant[calibrate]``. Memory holds the model as float32.

    Parameters
    ----------
    model : str or path
        A Hugging Face folder that transformers loads, with its tokenizer.
    destination : str or path
        A file whose name ends with .safetensors.
    texts : sequence of str or path
        Files of UTF-8 text, best of what the model is for. Without any, a text that comes with the
        package: prose, dialogue, tables and code in many languages.
    tokens : int
        The most that are used, in windows from all parts of the texts.
    context : int
        Tokens of a window.
    threads : int, optional
        Default: the CPUs of this process.
    overwrite : bool
        Whether the destination may be replaced.
    progress : callable, optional
        Gets how many tokens are done, and of how many, after each window.

    Returns
    -------
    Calibration

    Raises
    ------
    UsageError
        An argument is out of bounds.
    ValueError
        The model is no such folder, the texts are too short, or inputs are not finite.
    FileExistsError
    FileNotFoundError
    ImportError
        The extra is not installed.
    """
    tokens = arguments.at_least(_LEAST_TOKENS, "tokens", tokens)
    context = arguments.at_least(8, "context", context)
    threads = arguments.at_least(1, "threads", arguments.thread_count(threads))
    path = Path(destination)
    if path.suffix != SUFFIX:
        raise UsageError(f"'{path}' must end with {SUFFIX}")
    with Outputs([path], overwrite) as outputs:  # which finds out what is there, before all work
        used = texts_in(texts)
        opened = open_model(locate(os.fspath(model), None))
        folder, architecture = _folder_of(opened)
        running = _import_running()
        windows = _windows(running, folder, used, tokens, context)
        found = running.measured(
            running.load(folder, architecture, _files_to_defer(opened)),
            windows,
            threads,
            progress or (lambda *_: None),
        )
        values, unused = _by_layers(found, opened, folder)
        count = sum(map(len, windows))
        origin = Origin([(text.name, text.sha256) for text in used], count, len(windows))
        write_tensors(outputs.temporary(path), _entries(values), metadata_of(origin))
    return Calibration(path, len(values), unused, count, tuple(text.name for text in used))


def _folder_of(model: Model) -> tuple[str, str]:
    """Return the folder of a model, and the class of transformers that it is of."""
    config = model.config
    if model.folder is None or config is None:
        raise ValueError(
            f"'{model.location}' is no Hugging Face folder: {CONFIG} is missing. For GGUF models, "
            "llama.cpp's llama-imatrix measures importance, which quantize takes as well"
        )
    named = config.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise ValueError(
            f"{model.folder.within(CONFIG)} has no architectures, such as ['LlamaForCausalLM'], "
            "which say how the model is run"
        )
    return str(model.folder), named[0]


def _files_to_defer(model: Model) -> list[str]:
    """Return the files of weights, if they are no codes, which transformers has to decode."""
    if quantization_in(model.config or {}):
        return []
    return [str(file) for file in model.files]


def _import_running() -> Any:
    try:
        from pyarrowquant.calibration import running
    except ImportError as error:
        raise ImportError(
            f"calibrate runs the model with torch and transformers ({error}): "
            "pip install 'pyarrowquant[calibrate]'"
        ) from error
    return running


def _windows(
    running: Any, folder: str, texts: Sequence[Text], tokens: int, context: int
) -> list[list[int]]:
    """Cut texts into windows, each with what begins a text, and choose from all parts of them."""
    first, tokens_of_texts = running.tokens_of(folder, [text.content for text in texts])
    step = context - len(first)
    ids = [each for tokens_of_text in tokens_of_texts for each in tokens_of_text]
    if len(ids) < _LEAST_TOKENS:
        raise ValueError(
            f"{first_few([text.name for text in texts])}: {len(ids)} tokens are too few to measure "
            f"importance: give {_LEAST_TOKENS} or more, best thousands"
        )
    windows = [[*first, *ids[begin : begin + step]] for begin in range(0, len(ids), step)]
    most = max(1, tokens // context)
    if len(windows) > most:
        windows = [windows[i * len(windows) // most] for i in range(most)]
    return windows


def _by_layers(
    found: Mapping[str, Any], model: Model, folder: str
) -> tuple[dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]], tuple[str, ...]]:
    """Return means and counts by the folder's names, and what had no input."""
    names = {tensor.name for tensor in model.all_tensors}
    values: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
    unused = []
    for parameter, squares in found.items():
        sums, counts = squares.sums.numpy(), squares.counts.numpy()
        if not np.isfinite(sums).all():
            raise ValueError(
                f"'{folder}': inputs of {quoted(parameter)} are NaN or Inf. The model does not "
                "compute with float32 what it was made for, or its weights are damaged"
            )
        for place in folder_names(parameter, names):
            which = slice(None) if place.expert is None else slice(place.expert, place.expert + 1)
            if not counts[which].all():
                unused.append(place.name)
            values[place.name] = _means(sums, counts, which)
    if not values:
        raise ValueError(
            f"'{folder}': the model's parameters, such as {first_few(list(found)[:3])}, have none "
            "of the names of its tensors"
        )
    return dict(sorted(values.items())), tuple(sorted(unused))


def _means(
    sums: npt.NDArray[Any], counts: npt.NDArray[Any], which: slice
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the mean squares of matrices; those without an input have the mean of all others."""
    all_inputs = sums.sum(axis=0) / max(counts.sum(), 1)
    chosen, number = sums[which], counts[which]
    means = np.where(number[:, None] > 0, chosen / np.maximum(number, 1)[:, None], all_inputs)
    return means.astype(np.float32).reshape(-1), number


def _entries(values: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> list[Entry]:
    return [
        entry
        for name, (means, counts) in values.items()
        for entry in (_entry(name, "F32", means), _entry(name + COUNT, "I64", counts))
    ]


def _entry(name: str, dtype: str, array: npt.NDArray[Any]) -> Entry:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return Entry.known(name, dtype, array.shape, array.nbytes, lambda: [little.data])
