"""Scales of whole layers that several layers have in common, found before these are quantized."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from pyarrowquant._core import library
from pyarrowquant._core.encodings import ENCODINGS
from pyarrowquant._core.options import quantize_options
from pyarrowquant._core.settings import Settings
from pyarrowquant.conversion.planning import planned
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._fused import sets_of
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.plan import LayerScale
from pyarrowquant.recipes.recipe import Recipe


def shared_scales(
    target: Format, model: Model, settings: Settings, recipe: Recipe | None
) -> LayerScale | None:
    """Return what gives the least scale of a layer; None where all layers have their own."""
    coded = {
        layer.name: layer.settings.encoding
        for layer in planned(model, settings, recipe)
        if layer.name is not None
        and layer.settings is not None
        and layer.settings.encoding in ENCODINGS
        and ENCODINGS[layer.settings.encoding].layer_bits
    }
    sets = sets_of(coded, target.joined_as)
    return _SharedScales(model, coded, sets) if sets else None


class _SharedScales:
    """The largest scale of the layers of a set, which are read when the first of them is wanted.

    Parameters
    ----------
    model : Model
    encodings : dict of str to str
        Of layers by name.
    sets : sequence of list of str
    """

    def __init__(self, model: Model, encodings: dict[str, str], sets: Sequence[list[str]]) -> None:
        self._encodings = encodings
        self._set_of = {name: names for names in sets for name in names}
        self._readers: dict[str, Callable[[], pa.RecordBatch]] = {
            name: read for name, read in model.layer_readers() if name in self._set_of
        }
        self._scales: dict[str, float] = {}

    def __call__(self, name: str) -> float:
        names = self._set_of.get(name)
        if names is None:
            return 0.0
        if name not in self._scales:
            largest = max(map(self._own, names))
            self._scales.update(dict.fromkeys(names, largest))
        return self._scales[name]

    def _own(self, name: str) -> float:
        """Return the scale that a layer has alone; 0 for one that fails, which is told later."""
        table = pa.Table.from_batches([self._readers[name]()])
        encoding = self._encodings[name]
        options = quantize_options(encoding=encoding, method="rtn", continue_on_error=True)
        result = library.quantize(table, options.encoded(), None).table
        return float(result["super_scales"][0][0].as_py()) if result.num_rows else 0.0
