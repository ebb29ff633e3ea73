"""ONNX models as ONNX Runtime runs them: tokens in, logits or embeddings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pyarrowquant._core.quoting import first_few
from pyarrowquant.calibration.onnx_feeds import Feeds
from pyarrowquant.calibration.onnx_session import OnnxSession, beside_or_above, onnx_tokenizer
from pyarrowquant.evaluation.counting import Part
from pyarrowquant.reading.config import CONFIG, read_config
from pyarrowquant.reading.location import Location, locate
from pyarrowquant.reading.onnx_model import import_onnx, load_model
from pyarrowquant.reading.positions import positions_in

_LOGITS = "logits"
# Outputs that are embeddings, the first that a model has: of the text, or of its tokens.
_EMBEDDINGS = {"sentence_embedding": 2, "last_hidden_state": 3, "token_embeddings": 3}
_MASKED = "ForMaskedLM"


class OnnxFile:
    """A model whose weights are not loaded yet, a `Found`.

    Parameters
    ----------
    path : str
    of_tokens : bool
        Whether to take embeddings of tokens, where there are any, and not that of the text.
    """

    def __init__(self, path: str, of_tokens: bool) -> None:
        self.path = path
        self._location = locate(path, None)
        graph = load_model(import_onnx("Running"), self._location).graph
        self._feeds = Feeds(graph, self._location)
        beside = beside_or_above(self._location, CONFIG)
        config = {} if beside is None else read_config(beside)
        self.longest_context = positions_in(config)
        self._output = _output_of(self._location, graph, config, of_tokens)
        self.predicts = self._output == _LOGITS

    def tokenizer(self) -> OnnxTokenizer:
        return OnnxTokenizer(self._location)

    def load(self, threads: int) -> OnnxModel:
        session = OnnxSession(self.path, self._location, self._feeds, threads)
        return OnnxModel(session, self._location, self._output)


class OnnxTokenizer:
    """The tokenizer beside a model."""

    def __init__(self, model: Location) -> None:
        self._loaded = onnx_tokenizer(model)

    def vocabulary(self) -> Mapping[str, int]:
        found: dict[str, int] = self._loaded.get_vocab()
        return found

    def encoded(self, text: str, special: bool) -> list[int]:
        return list(self._loaded.encode(text, add_special_tokens=special).ids)


class OnnxModel:
    """A model with its weights.

    Parameters
    ----------
    session : OnnxSession
    location : Location
    output : str
        The one that is looked at.
    """

    def __init__(self, session: OnnxSession, location: Location, output: str) -> None:
        self._session = session
        self._location = location
        self._output = output

    def predicted(self, window: Sequence[int]) -> Iterator[Part]:
        """Predict the second half of a window."""
        half, last = len(window) // 2, len(window) - 1  # behind which there is none to predict
        logits = self._run(window[:last], 3)
        yield Part(half, last, logits[half:].astype(np.float32, copy=False))

    def embedded(self, passage: Sequence[int]) -> npt.NDArray[Any]:
        """Return the embedding of a passage, or vectors of its tokens."""
        return self._run(passage, _EMBEDDINGS[self._output])

    def _run(self, tokens: Sequence[int], dimensions: int) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._session.run(tokens, [self._output])[self._output]
        expected = [1, len(tokens)][: dimensions - 1]
        if found.ndim != dimensions or list(found.shape[:-1]) != expected:
            raise ValueError(
                f"{self._location}: its output {self._output} has shape {list(found.shape)} for "
                f"{len(tokens)} tokens, which is no row for each. Export a model that gives these"
            )
        return found[0]  # type: ignore[no-any-return]


def _output_of(location: Location, graph: Any, config: Mapping[str, Any], of_tokens: bool) -> str:
    """Return the output of logits or embeddings."""
    outputs = {value.name: value for value in graph.output}
    if _LOGITS in outputs:
        _check_predicts(location, outputs[_LOGITS], config)
        return _LOGITS
    for name in sorted(_EMBEDDINGS, key=lambda each: of_tokens and _EMBEDDINGS[each] == 2):
        if name in outputs:
            return name
    raise ValueError(
        f"{location} has the outputs {first_few(list(outputs))}. Only models with the output "
        f"{_LOGITS}, of the next token, or with embeddings ({', '.join(_EMBEDDINGS)}) can be "
        "evaluated"
    )


def _check_predicts(location: Location, value: Any, config: Mapping[str, Any]) -> None:
    """Refuse logits of whole texts, and of tokens that are masked, as far as that is said."""
    tensor = value.type.tensor_type
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    problem = None
    if tensor.HasField("shape") and len(tensor.shape.dim) != 3:
        problem = f"have {len(tensor.shape.dim)} dimensions, where those of tokens have 3"
    elif isinstance(name, str) and name.endswith(_MASKED):
        problem = f"are of masked tokens, by {name} of its {CONFIG}"
    if problem is not None:
        raise ValueError(
            f"{location}: its {_LOGITS} {problem}. Export it without its head, as last_hidden_state"
        )
