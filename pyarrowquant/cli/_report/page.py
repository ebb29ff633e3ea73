"""The page itself: one file of HTML that asks for nothing else."""

from __future__ import annotations

import json
import math
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import Any

from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.group_sizes import BLOCK, TENSOR, WHOLE_ROW, GroupSize, size_order
from pyarrowquant._core.quoting import printable
from pyarrowquant._version import __version__
from pyarrowquant.cli._report import figures
from pyarrowquant.cli._report.beside import Pair, Side, errors_of_both, only_in, pairs
from pyarrowquant.cli._report.blocks import cells_of, heat_map, scale_of
from pyarrowquant.cli._report.evaluation import ShownEvaluation
from pyarrowquant.cli._report.histograms import Histogram
from pyarrowquant.cli._report.layers import Layer, total_relative_error
from pyarrowquant.cli._report.used import recipe_of, used_in
from pyarrowquant.cli._show import counted, plain, shape_text, size_text

_WORST = 20


def check_installed() -> None:
    """Say what is missing before any work."""
    for package, name in (("jinja2", "Jinja2"), ("plotly", "Plotly")):
        if find_spec(package) is None:
            raise ImportError(f"Reports need {name}: pip install 'pyarrowquant[report]'")


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes
    ----------
    side : Side
        The result.
    other : Side or None
        Another one beside it.
    original : str or None
        The model before, as the user named it.
    original_bytes : int or None
        Size of the original's files; None without an original, or where it lies elsewhere.
    histograms : list of Histogram
        Of the worst layers, the worst first.
    left_out : list of str
        Layers of the original that the results do not have.
    evaluation : ShownEvaluation or None
    """

    side: Side
    other: Side | None
    original: str | None
    original_bytes: int | None
    histograms: list[Histogram]
    left_out: list[str]
    evaluation: ShownEvaluation | None


def totals_of(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return what all layers have together."""
    weights = sum(layer.weights for layer in layers)
    stored = sum(layer.bytes for layer in layers)
    return {
        "layers": len(layers),
        "weights": weights,
        "bits_per_weight": 8 * stored / max(weights, 1),
        "relative_error": total_relative_error(layers),
    }


def render(report: Report) -> str:
    """Return the page."""
    import jinja2
    import markupsafe
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,  # names of layers are not ours
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        counted=counted,
        printable=printable,
        shape=shape_text,
        size=size_text,
        relative=_relative,
    )
    date = datetime.now().astimezone()
    side, other = report.side, report.other
    worst = sorted(side.layers, key=lambda layer: -layer.relative_error)[:_WORST]
    both = [] if other is None else pairs(side, other)
    recipe = recipe_of(side.layers, side.settings)
    return environment.get_template("page.html").render(
        report=report,
        side=side,
        totals=totals_of(side.layers),
        settings=_settings(side),
        used=used_in(side.layers),
        recipe=None if recipe is None else json.dumps(recipe, indent=1),
        widths=_widths(side.layers),
        worst=worst,
        squared_error=sum(layer.squared_error for layer in side.layers),
        unplotted=sum(1 for one in side.layers if not 0 < one.relative_error < math.inf),
        colors=figures.COLORS,
        both=both,
        sides=_sides(report),
        only=[] if other is None else [*_only(side, other), *_only(other, side)],
        charts=_charts(report, both),
        data=_data(report, recipe, date),
        version=__version__,
        date=date.strftime("%Y-%m-%d %H:%M %Z"),
        plotly=markupsafe.Markup(get_plotlyjs()),
        nonce=secrets.token_urlsafe(16),  # scripts without it do not run
    )


def _relative(error: float) -> str:
    return f"{error:.5f}" if math.isfinite(error) else "inf"


def _scope(group_size: GroupSize) -> str:
    """What shares a scale."""
    shared = {WHOLE_ROW: "whole rows", TENSOR: "whole tensors", BLOCK: "blocks"}
    return shared.get(group_size, str(group_size))


def _settings(side: Side) -> dict[str, str]:
    """How the results were made, as text; what differs by layer is said in the tables."""
    names = ("method", "zero_point", "scale_dtype")
    said = {name: side.settings.get(name) for name in names if name in side.settings}
    shown = {name: "by layer" if value is None else str(value) for name, value in said.items()}
    groups = {layer.group_size for layer in side.layers if layer.group_size is not None}
    if groups:
        shown["group_size"] = ", ".join(map(_scope, sorted(groups, key=size_order)))
    codings = Counter(layer.coding or INTEGER for layer in side.layers)
    if codings.keys() != {INTEGER}:
        shown["codes"] = ", ".join(f"{name} ({count})" for name, count in codings.most_common())
    shown["bit_width"] = ", ".join(map(str, figures.by_width(side.layers)))
    if "version" in side.settings:
        shown["quantized by"] = f"pyarrowquant {side.settings['version']}"
    return shown


def _widths(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """A row for each bit width, and one for all."""
    rows = []
    weights = sum(layer.weights for layer in layers)
    for width, group in [*figures.by_width(layers).items(), (None, layers)]:
        count = sum(layer.weights for layer in group)
        stored = sum(layer.bytes for layer in group)
        rows.append(
            {
                "bit_width": width,
                "layers": len(group),
                "weights": count,
                "share": 100 * count / max(weights, 1),
                "parts": [
                    sum(figures.part_bytes(layer)[part] for layer in group)
                    for part in ("codes", "scales", "zero-points")
                ],
                "bytes": stored,
                "bits_per_weight": 8 * stored / max(count, 1),
                "relative_error": total_relative_error(group),
            }
        )
    return rows


def _sides(report: Report) -> list[dict[str, Any]]:
    """A row for each of two results."""
    if report.other is None:
        return []
    return [
        {
            "side": side,
            **totals_of(side.layers),
            "settings": _settings(side),
            "ratio": None if not report.original_bytes else report.original_bytes / side.file_bytes,
        }
        for side in (report.side, report.other)
    ]


def _only(one: Side, other: Side) -> list[tuple[str, list[str]]]:
    """The result that has layers which the other lacks, and their names."""
    names = only_in(one, other)
    return [(one.result, names)] if names else []


def _charts(report: Report, both: Sequence[Pair]) -> dict[str, Any]:
    side, other = report.side, report.other
    charts = {
        "overview": figures.overview(side.layers),
        "weights-by-width": figures.weights_by_width(side.layers),
        "sizes": figures.sizes(side.layers),
    }
    maps = {"blocks": cells_of(side.layers)}
    if other is not None:
        charts["beside"] = errors_of_both(both, side, other)
        maps["blocks-beside"] = cells_of(other.layers)
    maps = {name: cells for name, cells in maps.items() if cells}
    for name, cells in maps.items():
        charts[name] = heat_map(cells, scale_of(*maps.values()))
    for i, shown in enumerate(report.histograms):
        charts[f"histogram-{i}"] = figures.code_use(shown)
    described = {name: json.loads(figure.to_json()) for name, figure in charts.items()}
    for chart in described.values():
        chart["layout"].pop("template", None)  # the page has its own colors
    return described


def _data(report: Report, recipe: dict[str, Any] | None, date: datetime) -> Any:
    """The numbers of the page, for programs."""
    side, other = report.side, report.other
    beside = None if other is None else {**_numbers(other), "settings": other.settings}
    return plain(
        {
            **_numbers(side),
            "original": report.original,
            "date": date.isoformat(timespec="seconds"),
            "version": __version__,
            "settings": side.settings,
            "original_bytes": report.original_bytes,
            "left_out": report.left_out,
            "evaluation": None if report.evaluation is None else asdict(report.evaluation),
            "recipe": recipe,
            "other": beside,
        }
    )


def _numbers(side: Side) -> dict[str, Any]:
    """The numbers of a result."""
    layers = [
        {
            **asdict(layer),
            "bytes": layer.bytes,
            "bits_per_weight": layer.bits_per_weight,
            "signal_to_noise_db": layer.signal_to_noise_db,
        }
        for layer in side.layers
    ]
    return {
        "result": side.result,
        "file_bytes": side.file_bytes,
        "totals": totals_of(side.layers),
        "layers": layers,
    }
