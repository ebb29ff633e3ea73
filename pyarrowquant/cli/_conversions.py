"""What a conversion does, or would do, as people and programs read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.group_sizes import GroupSize, grouping_text, size_order
from pyarrowquant._core.quoting import first_names, printable
from pyarrowquant._core.underflow import underflow_text
from pyarrowquant.cli._show import counted, quoted_path, show_json, size_text
from pyarrowquant.conversion.outcome import Conversion, ConversionPlan
from pyarrowquant.conversion.partial.interrupted import Continued
from pyarrowquant.conversion.unquantized import UnquantizedTensor
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.recipes.rule import rule_label


def show_conversion(done: Conversion, as_json: bool) -> None:
    """Print what a conversion has done."""
    if as_json:
        summary = {
            "destination": str(done.destination),
            "mix": done.mix,
            "mix_is_changed": done.mix_is_changed,
            "layers": done.layers,
            "skipped": done.skipped,
            "missed": done.missed,
            "underflows": [asdict(layer) for layer in done.underflows],
            "weights": done.weights,
            "bytes": done.bytes,
            "bits_per_weight": done.bits_per_weight,
            "model_bits_per_weight": done.model_bits_per_weight,
            "relative_error": done.relative_error,
            "seconds": done.seconds,
            "source_bytes": done.source_bytes,
            "unquantized": [asdict(tensor) for tensor in done.unquantized],
            "decoded": done.decoded,
            "tensors_only": done.tensors_only,
        }
        show_json(summary)
        return
    bits = f"{done.bits_per_weight:.2f} bits a weight"
    if any(tensor.kept for tensor in done.unquantized):
        bits += f" ({done.model_bits_per_weight:.2f} over the whole model)"
    as_mix = _mix_text(done)
    click.echo(
        f"{counted(done.layers, 'layer')}{as_mix}, {counted(done.weights, 'weight')}, {bits}, "
        f"relative error {done.relative_error:.4f}, {done.seconds:.2f} s"
    )
    if done.skipped:
        click.echo(f"{counted(len(done.skipped), 'layer')} failed")
    if done.underflows:
        click.echo(printable(underflow_text(done.underflows)))
    _show_rest(done)
    before = "" if done.source_bytes is None else f"{size_text(done.source_bytes)} -> "
    click.echo(f"{quoted_path(done.destination)}: {before}{size_text(done.bytes)}")


def _mix_text(shown: Conversion | ConversionPlan) -> str:
    if shown.mix is None:
        return ""
    return f" as {shown.mix}{' with changes' if shown.mix_is_changed else ''}"


def show_plan(shown: ConversionPlan, resume: bool, as_json: bool) -> None:
    """Print what a conversion would do."""
    if as_json:
        rows = [
            {
                "layer_name": layer.name,
                "shape": layer.shape,
                "settings": None if layer.settings is None else asdict(layer.settings),
                "rule": None if layer.rule is None else layer.rule.said,
            }
            for layer in shown.layers
        ]
        show_json(
            {
                "destination": str(shown.destination),
                "format": shown.to,
                "mix": shown.mix,
                "mix_is_changed": shown.mix_is_changed,
                "layers": rows,
                "unquantized": [asdict(tensor) for tensor in shown.unquantized],
                "continued": None if shown.continued is None else asdict(shown.continued),
                "decoded": shown.decoded,
                "source_bytes": shown.source_bytes,
                "tensors_only": shown.tensors_only,
                "files": [asdict(file) for file in shown.files],
            }
        )
        return
    if resume:
        click.echo(_continued_text(shown.continued))
    groups: dict[tuple[int, GroupSize, str, str], list[str]] = {}
    for layer in shown.layers:
        if layer.settings is not None:
            label = "" if layer.rule is None else rule_label(layer.rule.said)
            settings = layer.settings
            key = settings.bit_width, settings.group_size, settings.encoding, label
            groups.setdefault(key, []).append(str(layer.name))
    count = sum(map(len, groups.values()))
    as_mix = _mix_text(shown)
    click.echo(
        f"{count} of {len(shown.layers)} layers would be quantized{as_mix} to "
        f"{quoted_path(shown.destination)}"
    )
    for (width, group_size, encoding, label), names in sorted(groups.items(), key=_order):
        of = "" if encoding == INTEGER else f" of {encoding}"
        by = f", by {label[0].lower()}{label[1:]}" if label else ""
        how = f"{width} bits{of} in {grouping_text(group_size)}{printable(by)}"
        click.echo(f"  {len(names)} with {how}: {_some(names)}")
    _show_rest(shown)
    for file in shown.files:
        click.echo(f"{quoted_path(_beside(shown.destination, file.name))}: {size_text(file.bytes)}")


def _beside(destination: Path | str, name: str) -> Path | str:
    if isinstance(destination, Path):
        return destination.with_name(name)
    return f"{destination.rpartition('/')[0]}/{name}"


def _order(item: tuple[tuple[int, GroupSize, str, str], list[str]]) -> tuple[Any, ...]:
    width, group_size, *others = item[0]
    return width, size_order(group_size), others


def _continued_text(found: Continued | None) -> str:
    if found is None:
        return "There is no interrupted run to go on from: a new one would begin"
    if found.is_complete:
        return "An interrupted run is complete: it would only get its place"
    return f"An interrupted run would go on: {size_text(found.bytes)} of weights are done"


def _show_rest(shown: Conversion | ConversionPlan) -> None:
    """Say what else a person is to know of an output, beside its layers."""
    _show_decoded(shown.decoded)
    _show_unquantized(shown.unquantized)
    left = sum(tensor.bytes for tensor in shown.unquantized if not tensor.is_quantized_already)
    if shown.source_bytes is not None and 2 * left > shown.source_bytes:
        click.echo(f"Less than half of the model is quantized: {size_text(left)} are not")
    if shown.tensors_only:
        click.echo(f"Tensors alone, which {FORMATS[shown.to].engine} does not load as a model")


def _show_decoded(decoded: Mapping[str, int]) -> None:
    if decoded:
        listed = ", ".join(
            f"{coding} ({counted(count, 'layer')})" for coding, count in decoded.items()
        )
        click.echo(f"Decoded from {listed}")


def _show_unquantized(tensors: Sequence[UnquantizedTensor]) -> None:
    """Print a line for each reason, what is lost first."""
    groups: dict[tuple[bool, str], list[UnquantizedTensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.kept, tensor.reason), []).append(tensor)
    for (kept, reason), found in sorted(groups.items()):
        some = _some([tensor.name for tensor in found])
        size = size_text(sum(tensor.bytes for tensor in found))
        if any(tensor.is_decoded for tensor in found):
            size += f", as floats {size_text(sum(tensor.kept_bytes for tensor in found))}"
        click.echo(f"{'Kept' if kept else 'Left out'}, {reason}: {some} ({size})")


def _some(names: Sequence[str]) -> str:
    return first_names(names)
