"""How well a model predicts a text, and how far from another one it is."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant.evaluation.counting import DONE, Evaluation
from pyarrowquant.evaluation.embedding import EmbeddingEvaluation
from pyarrowquant.evaluation.in_process import Found, run_on_text
from pyarrowquant.evaluation.llama_cpp import not_installed
from pyarrowquant.evaluation.process import run_apart
from pyarrowquant.evaluation.request import Request
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.location import Location, locate, open_file
from pyarrowquant.reading.text import read_text

_Path = str | os.PathLike[str]
_LEAST_CONTEXT = 8
_MAGIC = b"GGUF"
_GGUF, _FOLDER, _ONNX = "a GGUF file", "a folder", "an ONNX model"
# What is run in this process, by which packages, and the extra that has them.
_NEEDED = {
    _FOLDER: ("folders", "torch and transformers", "calibrate"),
    _ONNX: ("ONNX models", "onnxruntime and tokenizers", "calibrate-onnx"),
}


def evaluate(
    result: _Path,
    text: _Path,
    *,
    against: _Path | None = None,
    context: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation | EmbeddingEvaluation:
    """Let a model predict a text, and the one it was made from; or embed it.

    GGUF files are run by llama.cpp, folders of Hugging Face by transformers, ONNX models by ONNX
    Runtime. Models of folders and of ONNX that predict no next token, such as BERT, give
    embeddings, which are compared.

    The text is cut into windows as `llama-perplexity` does it: each begins with the token that the
    model wants at the beginning, if any; tokens of its second half are predicted; what is left at
    the end is not used. For embeddings it is cut into paragraphs, and longer ones into windows; an
    embedding is the mean of what becomes of the tokens of a passage, or an ONNX model's
    sentence_embedding.

    Needs the extra ``pyarrowquant[evaluate]``, for folders ``pyarrowquant[calibrate]``, for ONNX
    models ``pyarrowquant[calibrate-onnx]``. llama.cpp runs in a process of its own, which it ends
    by itself on some damaged files. transformers computes with float32, and with weights that it
    decodes; of compressed-tensors, inputs of layers are not rounded.

    Memory holds the models, those of folders as float32, the tokens, and the logits of 128 tokens,
    of folders those of half a window, of ONNX models those of a window.

    Parameters
    ----------
    result : str or path
        A GGUF model, the folder of one with its tokenizer, or an ONNX model with tokenizer.json
        beside it, or in the folder above.
    text : str or path
        A file of UTF-8 text: what the model is for, and thousands of tokens of it.
    against : str or path, optional
        The model to compare with, of the same vocabulary, as of float16: a GGUF file with another
        one, a folder or an ONNX model with either of these. Models that give embeddings need one.
    context : int, optional
        Tokens of a window; default 512, or what the models take if that is less.
    threads : int, optional
        Default, and the most that are used: the CPUs of this process.
    progress : callable, optional
        Gets how many tokens are done, and of how many, after each part of a window.

    Returns
    -------
    Evaluation or EmbeddingEvaluation

    Raises
    ------
    UsageError
        An argument is out of bounds, or a model that gives embeddings has none beside it.
    ValueError
        What runs models does not run one, or llama.cpp ends by it, only one of two is GGUF, the
        vocabularies differ, or the text is too short or no UTF-8.
    FileNotFoundError
    ImportError
        The extra is not installed, or llama.cpp cannot be loaded.
    """
    places = [_place(path) for path in (result, against) if path is not None]
    if context is not None:
        context = arguments.at_least(_LEAST_CONTEXT, "context", context)
    threads = arguments.threads_to_start(threads)
    arguments.check_callback("progress", "two numbers of tokens", progress)
    words = _read(text)
    request = Request([place.path for place in places], words, str(text), context, threads)
    kinds = _kinds_of(places)
    if _GGUF not in kinds:
        return _run_here(kinds, request, progress)
    if find_spec("llama_cpp") is None:
        raise not_installed()
    return run_apart(request, progress)


def _place(path: _Path) -> Location:
    location = locate(path, None)
    if not location.is_local:
        raise ValueError(f"{location}: models of this machine are run only; download it")
    return location


def _kinds_of(places: Sequence[Location]) -> list[str]:
    """Return what models are; such as are not run together are an error."""
    kinds = [_kind(place) for place in places]
    if _GGUF in kinds and len(set(kinds)) > 1:
        said = ", and ".join(f"{each} is {kind}" for each, kind in zip(places, kinds, strict=True))
        folder = next(
            (each for each, kind in zip(places, kinds, strict=True) if kind == _FOLDER), None
        )
        way_out = (
            "give a GGUF file of its model, or a folder and an ONNX model"
            if folder is None
            else f"`pyarrowquant dequantize {folder} x.gguf` makes a GGUF file of the folder"
        )
        raise ValueError(f"{said}. llama.cpp runs GGUF files alone: {way_out}")
    return kinds


def _kind(place: Location) -> str:
    if place.is_file():
        if place.name.lower().endswith(".onnx"):
            return _ONNX
        _check_gguf(place)
        return _GGUF
    if not place.within(CONFIG).exists():
        raise ValueError(
            f"{place} is a folder without {CONFIG}; give a GGUF file, an ONNX model, or a folder "
            "of a model"
        )
    return _FOLDER


def _run_here(
    kinds: Sequence[str], request: Request, progress: Callable[[int, int], object] | None
) -> Evaluation | EmbeddingEvaluation:
    """Run models in this process."""

    def tell(what: str, value: Any) -> None:
        if what == DONE and progress is not None:
            progress(*value)

    of_tokens = _FOLDER in kinds  # whose embeddings are the means of those of tokens
    pairs = zip(kinds, request.paths, strict=True)
    return run_on_text(request, [_found(kind, path, of_tokens) for kind, path in pairs], tell)


def _found(kind: str, path: str, of_tokens: bool) -> Found:
    """Open a model, by packages that not everybody has."""
    try:
        if kind == _FOLDER:
            from pyarrowquant.evaluation.folders import Folder
        else:
            from pyarrowquant.evaluation.onnx_models import OnnxFile
    except ImportError as error:
        what, packages, extra = _NEEDED[kind]
        raise ImportError(
            f"Evaluating {what} runs them with {packages} ({error}): "
            f"pip install 'pyarrowquant[{extra}]'"
        ) from error
    return Folder(path) if kind == _FOLDER else OnnxFile(path, of_tokens)


def _check_gguf(place: Location) -> None:
    """Refuse what is no GGUF file, as far as its first bytes tell."""
    with open_file(place) as file:
        start = file.buffer(0, min(len(_MAGIC), file.size)).to_pybytes()
    if start != _MAGIC:
        raise ValueError(
            f"{place}: no GGUF file, no ONNX model, and no folder of a model. Only such are "
            "evaluated; `pyarrowquant quantize FOLDER x.gguf` makes a GGUF file of a Hugging Face "
            "folder"
        )


def _read(path: _Path) -> bytes:
    data = read_text(path)
    if len(data) >= 2**31:
        raise ValueError(
            f"{path}: the text has {len(data)} bytes, llama.cpp takes less than {2**31}. Give a "
            "part of it"
        )
    return data.removeprefix(BOM_UTF8)
