"""What becomes of the layers of a source."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence

import pyarrow as pa

from pyarrowquant._core.rows import layers as described
from pyarrowquant._core.settings import Settings
from pyarrowquant.formats._format import Format, preceded
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.planned import PlannedLayer, plan_layer
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule


def planned(
    model: Model, settings: Settings, recipe: Recipe | None, read: bool = False
) -> list[PlannedLayer] | None:
    """List the layers of a model, and what becomes of them.

    Where the model does not tell them without being read, that is done if `read`; else None.
    """
    found: Iterable[tuple[str | None, Sequence[int]]]
    if model.tensors is not None:
        found = [
            (tensor.name, tensor.shape) for tensor in model.tensors if model.can_quantize(tensor)
        ]
    elif read:
        found = (
            layer for batch in model.reader() for layer in described(pa.Table.from_batches([batch]))
        )
    else:
        return None
    return [plan_layer(name, shape, settings, recipe) for name, shape in found]


def with_ragged_kept(
    target: Format, layers: Sequence[PlannedLayer], recipe: Recipe | None
) -> tuple[Recipe | None, list[str]]:
    """Leave out layers that the format does not take for their shape.

    Returns
    -------
    Recipe or None
        With rules for such layers.
    list of str
        Their names.
    """
    names = [str(layer.name) for layer in layers if not target.takes_shape(layer)]
    # One rule, which looks names up.
    reason = "the format does not take their shape"
    rule = Rule([glob.escape(name) for name in names] or None, skip=True, reason=reason)
    first = [rule] if names else []
    return preceded(first, recipe), names
