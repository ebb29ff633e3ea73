"""Scales of whole layers of NVFP4, one for all layers that engines join."""

from __future__ import annotations

from collections.abc import Mapping

from pyarrowquant._core.encoded_rows import is_e4m3
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Packed
from pyarrowquant.formats._fused import joined_as, sets_of


def own_scale(layer: Packed) -> float:
    """Return the scale of a layer of NVFP4, which those that engines join are quantized with."""
    return float(layer.decoding.super_scales[0])


def global_scales(layers: Mapping[str, Packed]) -> dict[str, float]:
    """Return what the scales of each layer of NVFP4 are stored as multiples of.

    Raises
    ------
    ValueError
        Scales are no multiples of what a layer shares with others.
    """
    own = {name: own_scale(layer) for name, layer in layers.items() if layer.encoding == "nvfp4"}
    shared = dict(own)
    problems = []
    for names in sets_of(own, joined_as):
        largest = max(names, key=own.__getitem__)
        for name in names:
            shared[name] = own[largest]
            if own[name] < own[largest] and not is_e4m3(layers[name].scales / own[largest]).all():
                problems.append(
                    f"compressed-tensors cannot hold layer {quoted(name)}: its scales are too "
                    f"small for the global scale of {quoted(largest)}, which engines join it to"
                )
    if problems:
        how = (
            "convert() and `pyarrowquant quantize` choose one global scale for such layers before "
            "they are quantized. Convert the model by these, or quantize such layers to another "
            "encoding"
        )
        raise ValueError("\n".join([*problems, how]))
    return shared
