"""What ONNX models of text need to run: a session of ONNX Runtime, and a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnxruntime
import tokenizers

from pyarrowquant.calibration.onnx_feeds import Feeds
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.text import read_text
from pyarrowquant.reading.tokenizer import read_tokenizer

_TOKENIZER = "tokenizer.json"
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxSession:
    """Runs a model on the CPU.

    Parameters
    ----------
    source : str or bytes
        The path of a model, or the model itself, whose external data lies where its file does.
    location : Location
        Of its file.
    feeds : Feeds
    threads : int
    """

    def __init__(self, source: str | bytes, location: Location, feeds: Feeds, threads: int) -> None:
        self._location = location
        self._feeds = feeds
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors; what is not needed any more is none
        if isinstance(source, bytes):
            options.add_session_config_entry(_DATA_FOLDER, str(location.parent))
        try:
            self._session = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
        except Exception as error:  # it raises many that have nothing in common
            raise ValueError(
                f"{location}: ONNX Runtime does not load it: {_first_line(error)}"
            ) from error

    def run(self, window: Sequence[int], wanted: Sequence[str] = ()) -> dict[str, Any]:
        """Return outputs by their names, all or those that are wanted, for a window of tokens."""
        names = list(wanted) or [each.name for each in self._session.get_outputs()]
        try:
            found = self._session.run(names, self._feeds.of(window))
        except Exception as error:  # as above
            raise ValueError(
                f"{self._location} does not run on {len(window)} tokens: {_first_line(error)}. "
                "Give a smaller context=, if that is what it lacks"
            ) from error
        return dict(zip(names, found, strict=True))


def onnx_tokenizer(model: Location) -> Any:
    """Read the tokenizer of a model, which neither shortens nor fills up texts."""
    path = beside_or_above(model, _TOKENIZER)
    if path is None:
        raise FileNotFoundError(
            f"{model} has no {_TOKENIZER} beside it. Copy that of its model there"
        )
    tokenizer = read_tokenizer(tokenizers, read_text(str(path)), str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def beside_or_above(model: Location, name: str) -> Location | None:
    """Return a file beside a model, or beside its folder, as in a folder `onnx`."""
    places = (folder.within(name) for folder in (model.parent, model.parent.parent))
    return next((place for place in places if place.exists()), None)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
