"""Models of ONNX, run by ONNX Runtime on windows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnxruntime
import tokenizers

from pyarrowquant.calibration.onnx_feeds import Feeds
from pyarrowquant.calibration.onnx_sums import give_sums
from pyarrowquant.calibration.partial import WINDOWS_TOGETHER, Partial
from pyarrowquant.calibration.squares import Squares, check_finite
from pyarrowquant.calibration.texts import before_text
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.onnx import OnnxModel
from pyarrowquant.reading.text import read_text
from pyarrowquant.reading.tokenizer import read_tokenizer

_TOKENIZER = "tokenizer.json"
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxRunner:
    """Runs a model.

    Parameters
    ----------
    model : OnnxModel
        Whose graph is changed.
    """

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._feeds = Feeds(model.proto.graph, model.location)

    def tokens_of(self, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return what the model's tokenizer puts before each text, and the tokens of each."""
        path = _tokenizer_of(self._model.location)
        tokenizer = read_tokenizer(tokenizers, read_text(str(path)), str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokens = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        plain = tokenizer.encode("a", add_special_tokens=False).ids
        return before_text(tokenizer.encode("a").ids, plain), tokens

    def measured(
        self,
        windows: Sequence[Sequence[int]],
        threads: int,
        progress: Callable[[int, int], object],
        partial: Partial,
    ) -> Mapping[str, Squares]:
        """Run it, and return what its layers are multiplied with."""
        begin, found = partial.read()
        total, done = sum(map(len, windows)), sum(map(len, windows[:begin]))
        sums = give_sums(self._model)
        session = self._session(threads)
        for number, window in enumerate(windows[begin:], begin + 1):
            arrays = self._run(session, window)
            for each in sums:
                squares, count = arrays[each.squares], arrays[each.size][0]
                for layer in each.layers:
                    if layer not in found:
                        found[layer] = Squares.zeros(1, len(squares))
                    found[layer].sums[0] += squares
                    found[layer].counts[0] += count
            done += len(window)
            progress(done, total)
            if number % WINDOWS_TOGETHER == 0 or number == len(windows):
                check_finite(found, self._model.location)
                partial.write(number, found)
        return found

    def _session(self, threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors; what is not needed any more is none
        options.add_session_config_entry(_DATA_FOLDER, str(self._model.location.parent))
        try:
            return onnxruntime.InferenceSession(
                self._model.proto.SerializeToString(), options, ["CPUExecutionProvider"]
            )
        except Exception as error:  # it raises many that have nothing in common
            raise ValueError(
                f"{self._model.location}: ONNX Runtime does not load it: {_first_line(error)}"
            ) from error

    def _run(self, session: Any, window: Sequence[int]) -> dict[str, Any]:
        names = [each.name for each in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, self._feeds.of(window)), strict=True))
        except Exception as error:  # as above
            raise ValueError(
                f"{self._model.location} does not run on {len(window)} tokens: "
                f"{_first_line(error)}. Give a smaller context=, if that is what it lacks"
            ) from error


def _tokenizer_of(model: Location) -> Location:
    """Return the tokenizer beside a model, or beside its folder, as in a folder `onnx`."""
    for folder in (model.parent, model.parent.parent):
        if (path := folder.within(_TOKENIZER)).exists():
            return path
    raise FileNotFoundError(f"{model} has no {_TOKENIZER} beside it. Copy that of its model there")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
