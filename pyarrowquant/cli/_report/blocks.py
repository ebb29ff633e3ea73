"""The heat map of a model: its blocks, one after the other, by the kinds of their layers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from pyarrowquant.cli._report.layers import Layer, total_relative_error
from pyarrowquant.cli._report.text import chart_text
from pyarrowquant.cli._show import counted

_NUMBER = re.compile(r"(?:^|(?<=\.))\d+(?=\.)")
_MOST_KINDS = 80
_LONGEST_KIND = 28
Cells = dict[str, dict[int, list[Layer]]]


def kind_of(name: str) -> str:
    """Return a layer's name with a star for each number, such as that of its block."""
    return _NUMBER.sub("*", name)


def cells_of(layers: Sequence[Layer]) -> Cells:
    """Return the layers of kinds that are in several blocks, by kind and block."""
    found: Cells = {}
    for layer in layers:
        number = _NUMBER.search(layer.layer_name)
        if number is not None and len(number[0]) < 6 and 0 < layer.relative_error < math.inf:
            of_kind = found.setdefault(kind_of(layer.layer_name), {})
            of_kind.setdefault(int(number[0]), []).append(layer)
    several = {kind: blocks for kind, blocks in found.items() if len(blocks) > 1}
    return dict(list(several.items())[:_MOST_KINDS])


def scale_of(*maps: Cells) -> tuple[float, float]:
    """Return the ends of the scale of colors that maps share, as logarithms."""
    errors = [
        math.log10(total_relative_error(layers))
        for cells in maps
        for blocks in cells.values()
        for layers in blocks.values()
    ]
    return min(errors), max(errors)


def heat_map(cells: Cells, scale: tuple[float, float]) -> Any:
    """Relative error by block and kind, on a scale of logarithms."""
    from plotly import graph_objects

    numbers = sorted({number for blocks in cells.values() for number in blocks})
    rows = {
        kind: [total_relative_error(blocks[n]) if n in blocks else None for n in numbers]
        for kind, blocks in cells.items()
    }
    low, high = scale
    ticks = [low + (high - low) * step / 4 for step in range(5)] if high > low else [low]
    figure = graph_objects.Figure()
    figure.add_heatmap(
        x=numbers,
        y=list(range(len(rows))),
        z=[
            [None if error is None else math.log10(error) for error in errors]
            for errors in rows.values()
        ],
        zmin=low,
        zmax=high,
        colorscale="Viridis",
        xgap=1,
        ygap=1,
        colorbar={
            "tickvals": ticks,
            "ticktext": [f"{10**tick:.2g}" for tick in ticks],
            "thickness": 12,
        },
        text=[
            [
                _hover(kind, n, cells[kind].get(n, ()), error)
                for n, error in zip(numbers, row, strict=True)
            ]
            for kind, row in rows.items()
        ],
        hoverinfo="text",
    )
    figure.update_xaxes(title_text="block", tickformat="d", showgrid=False, zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=_labels(list(rows)),
        autorange="reversed",
        automargin=True,
        tickfont={"size": 10},
        showgrid=False,
        zeroline=False,
    )
    figure.update_layout(
        height=110 + 20 * len(rows), margin={"l": 20, "r": 8, "t": 8, "b": 44}, hovermode="closest"
    )
    return figure


def _labels(kinds: Sequence[str]) -> list[str]:
    """Leave out what all kinds have before their number, and after it."""
    before = {kind.partition("*")[0] for kind in kinds}
    labels = kinds if len(before) > 1 else [kind.partition("*.")[2] for kind in kinds]
    labels = [label.removesuffix(".weight") for label in labels]
    if len(set(labels)) < len(labels):
        labels = list(kinds)
    return [
        chart_text(f"\u2026{text[-_LONGEST_KIND:]}" if len(text) > _LONGEST_KIND else text)
        for text in labels
    ]


def _hover(kind: str, number: int, layers: Sequence[Layer], error: float | None) -> str:
    if error is None:
        return ""
    bits = 8 * sum(one.bytes for one in layers) / max(sum(one.weights for one in layers), 1)
    return (
        f"<b>{chart_text(kind)}</b><br>block {number}, {counted(len(layers), 'layer')}<br>"
        f"relative error {error:.5f}, {bits:.2f} bits a weight"
    )
