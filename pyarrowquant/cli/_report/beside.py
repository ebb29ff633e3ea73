"""Two results beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyarrowquant.cli._report.layers import Layer
from pyarrowquant.cli._report.text import chart_text

_COLORS = ("#3f7fd6", "#c77d0a")
_SYMBOLS = ("circle", "diamond")
_FEW_LAYERS = 300


@dataclass(frozen=True)
class Side:
    """A result.

    Attributes
    ----------
    result : str
        The file, as the user named it.
    file_bytes : int
    settings : dict
        What it says of how it was made.
    layers : list of Layer
        In the order of the file.
    """

    result: str
    file_bytes: int
    settings: dict[str, Any]
    layers: list[Layer]


@dataclass(frozen=True)
class Pair:
    """A layer that two results have."""

    one: Layer
    other: Layer

    @property
    def error_ratio(self) -> float:
        """The other's relative error as a multiple of the one's."""
        if self.one.relative_error == 0:
            return math.inf if self.other.relative_error else 1.0
        return self.other.relative_error / self.one.relative_error


def pairs(one: Side, other: Side) -> list[Pair]:
    """Return the layers of both, in the order of the first.

    Raises
    ------
    ValueError
        They have none in common.
    """
    by_name = {layer.layer_name: layer for layer in other.layers}
    found = [
        Pair(layer, by_name[layer.layer_name])
        for layer in one.layers
        if layer.layer_name in by_name
    ]
    if not found:
        raise ValueError(f"'{one.result}' and '{other.result}' have no layer in common")
    return found


def only_in(one: Side, other: Side) -> list[str]:
    """Names of the layers that only the first has."""
    names = {layer.layer_name for layer in other.layers}
    return [layer.layer_name for layer in one.layers if layer.layer_name not in names]


def errors_of_both(found: Sequence[Pair], one: Side, other: Side) -> Any:
    """The errors of each layer in both results."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    sides = (one, [pair.one for pair in found]), (other, [pair.other for pair in found])
    for number, (side, layers) in enumerate(sides):
        figure.add_scatter(
            x=list(range(1, len(layers) + 1)),
            y=[
                error if 0 < error < math.inf else None
                for error in (layer.relative_error for layer in layers)
            ],
            name=chart_text(side.result[-40:]),
            mode="markers",
            marker={
                "color": _COLORS[number],
                "symbol": _SYMBOLS[number],
                "size": 8 if len(layers) <= _FEW_LAYERS else 5,
            },
            hovertext=[
                f"<b>{chart_text(layer.layer_name)}</b><br>{layer.coded_in}, "
                f"{layer.bits_per_weight:.2f} a weight<br>"
                f"relative error {layer.relative_error:.5f}"
                for layer in layers
            ],
            hoverinfo="text",
        )
    figure.update_yaxes(title_text="relative error", type="log", dtick="D2", tickformat=".1~r")
    figure.update_xaxes(title_text="layer, in the order of the first", zeroline=False)
    figure.update_layout(
        height=340,
        margin={"l": 64, "r": 12, "t": 48, "b": 44},
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
    )
    return figure
