"""A model to quantize: its float weights, and what a text says about them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from quantizer import THREADS, Weights

from pyarrowquant import calibrate, read_importance
from pyarrowquant.conversion.rescaling import rescaled
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.models import open_model

# Of the text of the package, from all parts of it.
TOKENS = 4_096
CONTEXT = 512


@dataclass(frozen=True)
class Subject:
    """What quantizers are given.

    Attributes
    ----------
    folder : Path
        Of the float model.
    linear : dict of str to array
        What is quantized.
    others : dict of str to array
        Tensors that are not as in the folder, and are not quantized.
    importance : dict of str to array
        The mean square of what each column is multiplied with.
    seconds : float
        Of processors, that importance took.
    """

    folder: Path
    linear: Weights
    importance: Weights
    seconds: float
    others: Weights = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, linear: Weights) -> Subject:
        """Measure importance with the text of the package."""
        path = folder.with_name("importance.safetensors")
        started = time.process_time()
        calibrate(folder, path, tokens=TOKENS, context=CONTEXT, threads=THREADS)
        seconds = time.process_time() - started
        rows = read_importance(path).to_pylist()
        found = {row["layer_name"]: np.float32(row["importance"]) for row in rows}
        return cls(folder, linear, {name: found[name] for name in linear}, seconds)

    def rescaled(self) -> Subject:
        """Give the same model with factors moved between its layers."""
        model = rescaled(open_model(locate(self.folder, None)), FORMATS["gguf"], "on")
        found: Weights = {}
        for batch in model.reader():
            for row, (name, shape) in enumerate(
                zip(batch["layer_name"].to_pylist(), batch["shape"].to_pylist(), strict=True)
            ):  # all are float32
                flat = np.frombuffer(batch["weights"][row].as_buffer(), np.float32)
                found[name] = flat.reshape(shape).copy()
        importance = {
            name: values * np.square(model.column_factors(name))
            for name, values in self.importance.items()
        }
        linear = {name: found.pop(name) for name in self.linear}
        return replace(self, linear=linear, others=found, importance=importance)
