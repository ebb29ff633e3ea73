"""`calibrate`: the importance of a model's columns, from texts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyarrowquant._core import arguments
from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.calibration.names import folder_names
from pyarrowquant.calibration.partial import Partial, remove_finished
from pyarrowquant.calibration.squares import Squares
from pyarrowquant.calibration.texts import Text, parts_of, texts_in
from pyarrowquant.conversion.destination import check_destination
from pyarrowquant.conversion.partial.identity import check_unchanged, source_files
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.formats._safetensors import Entry, write_tensors
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.importance_tensors import COUNT, SUFFIX, Origin, metadata_of
from pyarrowquant.reading.location import given_path
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_source
from pyarrowquant.reading.onnx import OnnxModel
from pyarrowquant.reading.positions import positions_in, usual_context
from pyarrowquant.recipes.recipe import Recipe

_Path = str | os.PathLike[str]
_USUAL_TOKENS = 32_768
_LEAST_CONTEXT = 8
_LEAST_TOKENS = 256  # fewer say little about thousands of columns
_CHARACTERS = 16  # of a text for each token that is used; few have as many


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
    without : tuple of str
        Layers of the model that have no importance, as text does not come to them, such as those
        for images, or as they are not multiplied as linear layers are. Embeddings, norms, heads
        and the like, which are often not quantized, are not among them.
    tokens : int
        How many the model was run on.
    texts : tuple of str
        The names of the texts.
    """

    destination: Path
    layers: int
    unused: tuple[str, ...]
    without: tuple[str, ...]
    tokens: int
    texts: tuple[str, ...]


def calibrate(
    model: _Path,
    destination: _Path,
    texts: Sequence[_Path] = (),
    *,
    tokens: int = _USUAL_TOKENS,
    context: int | None = None,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Calibration:
    """Run a model on text, and write how large the inputs of its layers are.

    For each column of each linear layer, and of each expert, this is the mean of the squares of
    what it is multiplied with: the `importance` of `quantize_batch_arrow` and `convert`. Method
    "mse" then makes errors small where they matter to the model. Needs the extra
    ``pyarrowquant[calibrate]``, for ONNX models ``pyarrowquant[calibrate-onnx]``. Of a folder,
    memory holds one layer as float32, and what tokens have become.

    Parameters
    ----------
    model : str or path
        A Hugging Face folder that transformers loads, with its tokenizer; or an ONNX model of text
        with tokenizer.json beside it, or in the folder above.
    destination : str or path
        A file whose name ends with .safetensors.
    texts : sequence of str or path
        Files of UTF-8 text, best of what the model is for. Without any, a text that comes with the
        package: prose, dialogue, tables and code in many languages.
    tokens : int
        The most that are used, in windows from all parts of the texts.
    context : int, optional
        Tokens of a window; default 512, or what the model takes if its config.json says less.
    threads : int, optional
        Default, and the most that are used: the CPUs of this process.
    resume : bool
        Whether to go on from what an interrupted run with the same arguments has done. The bytes
        are those of a run without a break.
    overwrite : bool
        Whether the destination may be replaced.
    progress : callable, optional
        Gets how many tokens are done, and of how many, after each layer; of ONNX models after
        each window.

    Returns
    -------
    Calibration

    Raises
    ------
    UsageError
        An argument is out of bounds, or windows are longer than what the model takes.
    ValueError
        The model is no such folder and no such file, the texts are too short, inputs are not
        finite, or an interrupted run was another one.
    FileExistsError
    FileNotFoundError
    ImportError
        The extra is not installed.
    """
    tokens = arguments.at_least(_LEAST_TOKENS, "tokens", tokens)
    if context is not None:
        context = arguments.at_least(_LEAST_CONTEXT, "context", context)
    threads = arguments.threads_to_start(threads)
    arguments.boolean("resume", resume)
    arguments.boolean("overwrite", overwrite)
    arguments.check_callback("progress", "two numbers of tokens", progress)
    path = given_path("destination", destination)
    if path.suffix != SUFFIX:
        raise UsageError(f"'{path}', the file to write, must end with {SUFFIX}")
    remove_finished(path)
    with Outputs([path], overwrite) as outputs:  # which finds out what is there, before all work
        used = texts_in(texts)
        opened = open_source(os.fspath(model))
        read = [*(Path(str(file)) for file in opened.files), *map(Path, texts)]
        check_destination(path, overwrite, sources=read)
        context = _context_of(opened, context)
        runner = _runner_of(opened)
        windows = _windows(runner, used, tokens, context)
        scratch = outputs.temporary(path).parent
        run = _run(opened, windows)
        partial = Partial(path, run, resume, scratch)
        found = runner.measured(windows, threads, progress or (lambda *_: None), partial)
        check_unchanged(opened, run["source"])
        values, unused = _by_layers(found, opened)
        count = sum(map(len, windows))
        origin = Origin([(text.name, text.sha256) for text in used], count, len(windows))
        new = outputs.temporary(path)
        write_tensors(new, _entries(values), metadata_of(origin))
        partial.write(len(windows), found, output=new)
    partial.remove()
    without = tuple(name for name in _usual_layers(opened) if name not in values)
    return Calibration(path, len(values), unused, without, count, tuple(each.name for each in used))


class _Runner(Protocol):
    """Runs a model, with a package that not everybody has."""

    def tokens_of(self, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]: ...

    def measured(
        self,
        windows: Sequence[Sequence[int]],
        threads: int,
        progress: Callable[[int, int], object],
        partial: Partial,
    ) -> Mapping[str, Squares]: ...


def _runner_of(model: Model) -> _Runner:
    if isinstance(model, OnnxModel):
        try:
            from pyarrowquant.calibration.onnx_running import OnnxRunner
        except ImportError as error:
            raise _lacking("calibrate-onnx", "onnxruntime and tokenizers", error) from error
        return OnnxRunner(model)
    architecture = _architecture_of(model)
    try:
        from pyarrowquant.calibration.running import TransformersRunner
    except ImportError as error:
        raise _lacking("calibrate", "torch and transformers", error) from error
    return TransformersRunner(model, architecture)


def _lacking(extra: str, packages: str, error: ImportError) -> ImportError:
    return ImportError(
        f"calibrate runs the model with {packages} ({error}): pip install 'pyarrowquant[{extra}]'"
    )


def _architecture_of(model: Model) -> str:
    """Return the class of transformers that the model of a folder is of."""
    config = model.config
    if model.folder is None or config is None:
        raise ValueError(
            f"'{model.location}' is no Hugging Face folder, as {CONFIG} is missing, and no ONNX "
            "model. For a GGUF model, calibrate the folder that it was made of, or measure it with "
            "llama.cpp's llama-imatrix: quantize takes both"
        )
    named = config.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise ValueError(
            f"{model.folder.within(CONFIG)} has no architectures, such as ['LlamaForCausalLM'], "
            "which say how the model is run"
        )
    return named[0]


def _context_of(model: Model, context: int | None) -> int:
    """Return how many tokens windows have; more than the model takes is an error."""
    longest = positions_in(model.config or {})
    return max(_LEAST_CONTEXT, usual_context(context, longest, f"'{model.location}'"))


def _run(model: Model, windows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return what decides about the sums."""
    tokens = hashlib.sha256(json.dumps(windows).encode()).hexdigest()
    return {"source": source_files(model), "config": model.config, "tokens": tokens}


def _windows(runner: _Runner, texts: Sequence[Text], tokens: int, context: int) -> list[list[int]]:
    """Cut texts into windows, each with what begins a text, and choose from all parts of them."""
    most = max(1, tokens // context)
    contents = parts_of([text.content for text in texts], _CHARACTERS * tokens, most)
    first, tokens_of_texts = runner.tokens_of(contents)
    step = context - len(first)
    ids = [each for tokens_of_text in tokens_of_texts for each in tokens_of_text]
    if len(ids) < _LEAST_TOKENS:
        raise ValueError(
            f"{first_few([text.name for text in texts])}: {len(ids)} tokens are too few to measure "
            f"importance: give {_LEAST_TOKENS} or more, best thousands"
        )
    windows = [[*first, *ids[begin : begin + step]] for begin in range(0, len(ids), step)]
    if len(windows) > most:
        windows = [windows[i * len(windows) // most] for i in range(most)]
    return windows


def _by_layers(
    found: Mapping[str, Squares], model: Model
) -> tuple[dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]], tuple[str, ...]]:
    """Return means and counts by the folder's names, and what had no input."""
    names = {tensor.name for tensor in model.all_tensors}
    values: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
    unused = []
    for parameter, squares in found.items():
        sums, counts = squares.sums, squares.counts
        for place in folder_names(parameter, names):
            which = slice(None) if place.expert is None else slice(place.expert, place.expert + 1)
            if not counts[which].all():
                unused.append(place.name)
            values[place.name] = _means(sums, counts, which)
            if not np.isfinite(values[place.name][0]).all():
                raise ValueError(
                    f"'{model.location}': the squares of the inputs of {quoted(place.name)} are "
                    "beyond float32. The model's weights are damaged, or too large"
                )
    if not values:
        raise ValueError(
            f"'{model.location}': the model's parameters, such as {first_few(list(found)[:3])}, "
            "have none of the names of its tensors"
        )
    return dict(sorted(values.items())), tuple(sorted(unused))


def _usual_layers(model: Model) -> list[str]:
    """Return the layers that are quantized where nothing else is said."""
    usual = Recipe.preset("text")
    return sorted(
        tensor.name
        for tensor in model.all_tensors
        if model.can_quantize(tensor) and usual.settings_of(tensor.name, tensor.shape) is not None
    )


def _means(
    sums: npt.NDArray[Any], counts: npt.NDArray[Any], which: slice
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the mean squares of matrices; those without an input have the mean of all others."""
    all_inputs = sums.sum(axis=0) / max(counts.sum(), 1)
    chosen, number = sums[which], counts[which]
    means = np.where(number[:, None] > 0, chosen / np.maximum(number, 1)[:, None], all_inputs)
    with np.errstate(over="ignore"):  # which is told of
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
