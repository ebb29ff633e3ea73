"""Models of ONNX, run by ONNX Runtime on windows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pyarrowquant.calibration.onnx_feeds import Feeds
from pyarrowquant.calibration.onnx_session import OnnxSession, onnx_tokenizer
from pyarrowquant.calibration.onnx_sums import give_sums
from pyarrowquant.calibration.partial import WINDOWS_TOGETHER, Partial
from pyarrowquant.calibration.squares import Squares, check_finite
from pyarrowquant.calibration.texts import before_text
from pyarrowquant.reading.onnx import OnnxModel


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
        tokenizer = onnx_tokenizer(self._model.location)
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
        session = OnnxSession(
            self._model.proto.SerializeToString(), self._model.location, self._feeds, threads
        )
        for number, window in enumerate(windows[begin:], begin + 1):
            arrays = session.run(window)
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
