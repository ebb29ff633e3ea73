"""What conversions have done, or would do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pyarrowquant._core.underflow import Underflow
from pyarrowquant.conversion.partial.interrupted import Continued
from pyarrowquant.conversion.splitting import OutputFile
from pyarrowquant.conversion.tensors import ConvertedTensor
from pyarrowquant.conversion.unquantized import UnquantizedTensor
from pyarrowquant.recipes.planned import PlannedLayer


@dataclass(frozen=True)
class Conversion:
    """What `convert` has done.

    Attributes
    ----------
    destination : Path or str
        Of an output that is split, the first file. A str is a place in a store.
    to : str
        The format.
    mix : str or None
        The mix of types of llama.cpp that layers follow, such as "Q4_K_M", or the scheme of
        compressed-tensors, such as "FP8_BLOCK".
    mix_is_changed : bool
        Whether rules or a quality floor give some layers other settings than the mix has.
    layers : int
        How many were quantized.
    skipped : tuple of str
        What is wrong with layers that were left out because of ``continue_on_error=True``.
    missed : tuple of str
        What was said of layers that miss the quality floor with the most bits that the format has.
    underflows : tuple of Underflow
        Layers that have groups whose scale `scale_dtype`, or the encoding, rounds to 0, and how
        many.
    weights : int
        How many were quantized.
    bytes : int
        Size of all that was written.
    bits_per_weight : float
        Bits that the output has for a weight of a layer: codes, scales and zero-points.
    model_bits_per_weight : float
        The same, with all tensors of the output that are kept as they are.
    relative_error : float
        ||w - w'|| / ||w|| over all layers that were quantized.
    seconds : float
    source_bytes : int or None
        Size of the source's files; None where they are not on this machine.
    unquantized : tuple of UnquantizedTensor
        All other tensors of the source.
    tensors : tuple of ConvertedTensor
        What became of every tensor of the source, in its order, also of what an interrupted run had
        done of it.
    decoded : dict of str to int
        How many layers were decoded first, by what the source has them as, such as "Q8_0".
        Errors are those against the decoded weights.
    tensors_only : bool
        Whether the output is tensors by themselves, which no engine loads as a model.
    """

    destination: Path | str
    to: str
    mix: str | None
    mix_is_changed: bool
    layers: int
    skipped: tuple[str, ...]
    missed: tuple[str, ...]
    underflows: tuple[Underflow, ...]
    weights: int
    bytes: int
    bits_per_weight: float
    model_bits_per_weight: float
    relative_error: float
    seconds: float
    source_bytes: int | None
    unquantized: tuple[UnquantizedTensor, ...]
    tensors: tuple[ConvertedTensor, ...]
    decoded: dict[str, int]
    tensors_only: bool


@dataclass(frozen=True)
class ConversionPlan:
    """What `convert` would do.

    Attributes
    ----------
    destination : Path or str
        A str is a place in a store.
    to : str
        The format.
    mix : str or None
        The mix of types of llama.cpp that layers follow, such as "Q4_K_M", or the scheme of
        compressed-tensors, such as "FP8_BLOCK".
    mix_is_changed : bool
        As of `Conversion`.
    layers : tuple of PlannedLayer
        In the order of the source.
    unquantized : tuple of UnquantizedTensor
        All tensors of the source that would not be quantized.
    decoded : dict of str to int
        How many layers would be decoded first, by what the source has them as.
    files : tuple of OutputFile
        Those that the output would be split into; none where it would not.
    continued : Continued or None
        What an interrupted run has done, which ``resume=True`` goes on from; None without it, or
        where a new run would begin.
    source_bytes : int or None
    tensors_only : bool
        As of `Conversion`.
    """

    destination: Path | str
    to: str
    mix: str | None
    mix_is_changed: bool
    layers: tuple[PlannedLayer, ...]
    unquantized: tuple[UnquantizedTensor, ...]
    decoded: dict[str, int]
    files: tuple[OutputFile, ...]
    continued: Continued | None
    source_bytes: int | None
    tensors_only: bool
