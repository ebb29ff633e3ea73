"""What became of each tensor of a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pyarrowquant._core.settings import Settings
from pyarrowquant.conversion.quantized import QuantizedLayer
from pyarrowquant.conversion.unquantized import UnquantizedTensor
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import Tensor


@dataclass(frozen=True)
class ConvertedTensor:
    """What became of a tensor of the source.

    Attributes
    ----------
    name : str
        With a format that calls tensors otherwise than the source, its own name.
    shape : tuple of int
    dtype : str
        What the source has, as in safetensors; for codes what they are, such as "Q8_0".
    became : {"quantized", "kept", "decoded", "left out"}
        "kept" is in the output as it is in the source, "decoded" as floats where the source has
        codes that the format has no place for. What is decoded and then quantized is "quantized".
    reason : str or None
        Why it is not quantized, in words that fit several tensors; None for what is.
    settings : Settings or None
        What it was quantized with in the end, if a budget or a quality floor chose it, too.
    bits : int
        That it takes in the output: of what is quantized with scales and zero-points, of what is
        left out 0.
    mse, relative_error, cosine, max_abs_error : float or None
        Of what is quantized, as the columns of these names of `quantize_batch_arrow`: against the
        weights of the source, which are rescaled or decoded first where the conversion does so.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    became: Literal["quantized", "kept", "decoded", "left out"]
    reason: str | None
    settings: Settings | None
    bits: int
    mse: float | None = None
    relative_error: float | None = None
    cosine: float | None = None
    max_abs_error: float | None = None


def converted(
    model: Model, quantized: Sequence[QuantizedLayer], left: Sequence[UnquantizedTensor]
) -> tuple[ConvertedTensor, ...]:
    """List the tensors of a model in its order, of which some were quantized and some are left."""
    layers = {layer.name: layer for layer in quantized}
    others = {tensor.name: tensor for tensor in left}
    return tuple(
        _unquantized(others[tensor.name])
        if tensor.name in others
        else _quantized(tensor, layers[tensor.name])
        for tensor in model.all_tensors
    )


def _quantized(tensor: Tensor, layer: QuantizedLayer) -> ConvertedTensor:
    return ConvertedTensor(
        tensor.name,
        tensor.shape,
        tensor.stored_dtype,
        "quantized",
        None,
        layer.settings,
        layer.bits,
        layer.mse,
        layer.relative_error,
        layer.cosine,
        layer.max_abs_error,
    )


def _unquantized(tensor: UnquantizedTensor) -> ConvertedTensor:
    return ConvertedTensor(
        tensor.name,
        tensor.shape,
        tensor.dtype,
        "decoded" if tensor.is_decoded else "kept" if tensor.kept else "left out",
        tensor.reason,
        None,
        8 * tensor.kept_bytes,
    )
