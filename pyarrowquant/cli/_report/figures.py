"""The charts of the report. Colors of text and grid are the page's, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pyarrowquant.cli._report.histograms import Histogram
from pyarrowquant.cli._report.layers import Layer, total_relative_error
from pyarrowquant.cli._report.text import chart_text
from pyarrowquant.cli._show import shape_text, size_text

# Told apart by color and mark, on light and on dark ground.
COLORS = {
    1: "#7a7a7a",
    2: "#d1495b",
    3: "#c77d0a",
    4: "#2a9d5c",
    5: "#1a9aa8",
    6: "#3f7fd6",
    8: "#8f63d6",
}
_MARKS = {
    1: "x",
    2: "triangle-down",
    3: "diamond",
    4: "circle",
    5: "square",
    6: "triangle-up",
    8: "cross",
}
_PARTS = {"codes": "#3f7fd6", "scales": "#c77d0a", "zero-points": "#d1495b"}
_GREY = "#808080"
_MARGIN = {"l": 64, "r": 12, "t": 12, "b": 44}
_FEW_LAYERS = 300
_MOST_NAMES, _LONGEST_NAME = 24, 28


def overview(layers: Sequence[Layer]) -> Any:
    """Error and bits of each layer, in the order of the file, above one another."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.66, 0.34]
    )
    for width in sorted({layer.bit_width for layer in layers}):
        rows = [(i, layer) for i, layer in enumerate(layers, 1) if layer.bit_width == width]
        errors = [_positive(layer.relative_error) for _, layer in rows]
        bits = [layer.bits_per_weight for _, layer in rows]
        for row, values in enumerate((errors, bits), 1):
            figure.add_scatter(
                x=[i for i, _ in rows],
                y=values,
                row=row,
                col=1,
                name=f"{width} bits",
                mode="markers",
                marker={
                    "color": COLORS[width],
                    "symbol": _MARKS[width],
                    "size": 8 if len(layers) <= _FEW_LAYERS else 5,
                },
                legendgroup=str(width),
                showlegend=row == 1,
                hovertext=[_hover(i, layer) for i, layer in rows],
                hoverinfo="text",
            )
    total = _positive(total_relative_error(layers))
    if total is not None:
        figure.add_hline(total, row=1, col=1, line={"color": _GREY, "dash": "dash", "width": 1})
        figure.add_annotation(
            xref="x domain",
            x=1,
            y=math.log10(total),
            yref="y",
            text=f"total<br>{total:.4f}",
            align="left",
            showarrow=False,
            xanchor="left",
        )
    figure.update_yaxes(
        title_text="relative error", type="log", dtick="D2", tickformat=".1~r", row=1
    )
    figure.update_yaxes(title_text="bits a weight", rangemode="tozero", row=2)
    figure.update_xaxes(title_text="layer, in the order of the file", row=2, **_names(layers))
    figure.update_xaxes(range=[0.5 - len(layers) / 100, len(layers) * 1.01 + 0.5], zeroline=False)
    figure.update_layout(
        height=520,
        margin={**_MARGIN, "t": 36, "r": 56},
        hovermode="closest",
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.01,
            "yanchor": "bottom",
            "itemsizing": "constant",
        },
    )
    return figure


def _names(layers: Sequence[Layer]) -> dict[str, Any]:
    """Ticks with the names of layers: of all of them, or of some at equal distances."""
    step = -(-len(layers) // _MOST_NAMES)
    shown = range(0, len(layers), step) if layers else range(0)
    return {
        "tickvals": [i + 1 for i in shown],
        "ticktext": [_short(layers[i].layer_name) for i in shown],
        "tickangle": -45,
        "automargin": True,
        "tickfont": {"size": 10},
    }


def _short(name: str) -> str:
    """Leave out the middle of a long name, and what would be read as HTML."""
    if len(name) > _LONGEST_NAME:
        half = _LONGEST_NAME // 2
        name = f"{name[:half]}\u2026{name[-half:]}"
    return chart_text(name)


def weights_by_width(layers: Sequence[Layer]) -> Any:
    """Per cent of the weights with each bit width."""
    from plotly import graph_objects

    groups = by_width(layers)
    total = max(sum(layer.weights for layer in layers), 1)
    shares = [100 * sum(one.weights for one in group) / total for group in groups.values()]
    counts = [len(group) for group in groups.values()]
    figure = graph_objects.Figure()
    figure.add_bar(
        x=[f"{width} bits" for width in groups],
        y=shares,
        marker={"color": [COLORS[width] for width in groups]},
        text=[f"{share:.1f} %" for share in shares],
        textposition="outside",
        cliponaxis=False,
        hovertext=[
            f"{width} bits: {count} layers, {share:.2f} % of the weights"
            for width, count, share in zip(groups, counts, shares, strict=True)
        ],
        hoverinfo="text",
    )
    figure.update_yaxes(title_text="% of the weights", rangemode="tozero")
    figure.update_xaxes(type="category")
    figure.update_layout(height=300, margin={**_MARGIN, "t": 28}, showlegend=False, bargap=0.45)
    return figure


def sizes(layers: Sequence[Layer]) -> Any:
    """Bytes of codes, scales and zero-points, by bit width."""
    from plotly import graph_objects

    groups = by_width(layers)
    most = max((sum(one.bytes for one in group) for group in groups.values()), default=0)
    unit, name = next(
        (size, name)
        for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes"))
        if most >= size or size == 1
    )
    figure = graph_objects.Figure()
    for part, color in _PARTS.items():
        values = [sum(part_bytes(one)[part] for one in group) for group in groups.values()]
        figure.add_bar(
            x=[f"{width} bits" for width in groups],
            y=[value / unit for value in values],
            name=part,
            marker={"color": color},
            hovertext=[
                f"{width} bits, {part}: {size_text(value)}"
                for width, value in zip(groups, values, strict=True)
            ],
            hoverinfo="text",
        )
    figure.update_yaxes(title_text=name, rangemode="tozero")
    figure.update_xaxes(type="category")
    figure.update_layout(
        height=300,
        margin={**_MARGIN, "t": 28},
        barmode="stack",
        bargap=0.45,
        legend={"orientation": "h", "traceorder": "normal", "x": 0, "y": 1.01, "yanchor": "bottom"},
    )
    return figure


def code_use(shown: Histogram) -> Any:
    """The use of codes, and where the original weights lie between their levels."""
    from plotly import graph_objects

    levels = shown.levels
    ends = _ends(levels)
    uneven = levels != list(range(len(levels)))
    widest = 0.9 if len(levels) <= 64 else 1.0
    figure = graph_objects.Figure()
    figure.add_bar(
        x=levels,
        y=shown.codes,
        width=[widest * room for room in _room(levels, ends)],
        name="codes",
        marker={"color": COLORS[shown.layer.bit_width], "opacity": 0.55, "line": {"width": 0}},
        hovertemplate=f"{'level' if uneven else 'code'} %{{x}}: %{{y:.3g}} %<extra></extra>",
    )
    low, high = 2 * ends[0] - levels[0], 2 * ends[-1] - levels[-1]
    if shown.edges is not None and shown.density is not None:
        low, high = shown.edges[0], shown.edges[-1]
        figure.add_scatter(
            x=shown.edges,
            y=[*shown.density, shown.density[-1]],
            mode="lines",
            line={"shape": "hv", "width": 1.3, "color": _GREY},
            name="original weights",
            hovertemplate="at %{x:.2f}: %{y:.3g} % a step<extra></extra>",
        )
    for start, end in ((low, ends[0]), (ends[-1], high)):  # outside of the levels
        figure.add_vrect(start, end, fillcolor=_GREY, opacity=0.15, line_width=0)
    figure.update_xaxes(
        title_text=f"{'levels' if uneven else 'code units'}: weight / scale + zero-point",
        range=[low, high],
        zeroline=False,
        showgrid=False,
        dtick=None if uneven else max(1, len(levels) // 8),
        tick0=0,
        tickangle=0,
    )
    figure.update_yaxes(title_text="% of the weights", rangemode="tozero")
    figure.update_layout(height=240, margin={**_MARGIN, "t": 8, "l": 52}, showlegend=False)
    return figure


def _ends(levels: Sequence[float]) -> list[float]:
    """Halfway between levels, and as far from the outer ones."""
    between = [(one + other) / 2 for one, other in pairwise(levels)]
    return [2 * levels[0] - between[0], *between, 2 * levels[-1] - between[-1]]


def _room(levels: Sequence[float], ends: Sequence[float]) -> list[float]:
    """Widths about levels that do not overlap."""
    return [
        2 * min(level - start, end - level)
        for level, (start, end) in zip(levels, pairwise(ends), strict=True)
    ]


def by_width(layers: Sequence[Layer]) -> dict[int, list[Layer]]:
    groups: dict[int, list[Layer]] = {}
    for layer in sorted(layers, key=lambda one: one.bit_width):
        groups.setdefault(layer.bit_width, []).append(layer)
    return groups


def part_bytes(layer: Layer) -> dict[str, int]:
    return {
        "codes": layer.code_bytes,
        "scales": layer.scale_bytes,
        "zero-points": layer.zero_point_bytes,
    }


def _positive(value: float) -> float | None:
    """What a logarithmic axis can show."""
    return value if 0 < value < math.inf else None


def _hover(number: int, layer: Layer) -> str:
    """Charts read some HTML; names must not be any."""
    return (
        f"<b>{chart_text(layer.layer_name)}</b><br>"
        f"layer {number}, {shape_text(layer.shape)}, {layer.coded_in}, "
        f"{layer.bits_per_weight:.2f} a weight<br>"
        f"relative error {layer.relative_error:.5f}, cosine {layer.cosine:.6f}"
    )
