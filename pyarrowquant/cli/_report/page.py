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
from pyarrowquant._version import __version__
from pyarrowquant.cli._report import figures
from pyarrowquant.cli._report.histograms import Histogram
from pyarrowquant.cli._report.layers import Layer, total_relative_error
from pyarrowquant.cli._show import plain, printable, shape_text, size_text

_WORST = 20


def check_installed() -> None:
    """Say what is missing before any work."""
    for package, name in (("jinja2", "Jinja2"), ("plotly", "Plotly")):
        if find_spec(package) is None:
            raise ImportError(f"Reports need {name}: pip install pyarrowquant[report]")


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes
    ----------
    result, original : str
        The files, as the user named them; no original if None.
    file_bytes : int
        Size of the result's files.
    original_bytes : int or None
        Size of the original's files; None without an original, or where it lies elsewhere.
    settings : dict
        What the results say of how they were made.
    layers : list of Layer
        In the order of the file.
    histograms : list of Histogram
        Of the worst layers, the worst first.
    left_out : list of str
        Layers of the original that the results do not have.
    """

    result: str
    original: str | None
    file_bytes: int
    original_bytes: int | None
    settings: dict[str, Any]
    layers: list[Layer]
    histograms: list[Histogram]
    left_out: list[str]

    def totals(self) -> dict[str, Any]:
        weights = sum(layer.weights for layer in self.layers)
        stored = sum(layer.bytes for layer in self.layers)
        return {
            "layers": len(self.layers),
            "weights": weights,
            "bits_per_weight": 8 * stored / max(weights, 1),
            "relative_error": total_relative_error(self.layers),
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
        printable=printable,
        shape=shape_text,
        size=size_text,
        relative=_relative,
    )
    date = datetime.now().astimezone()
    worst = sorted(report.layers, key=lambda layer: -layer.relative_error)[:_WORST]
    return environment.get_template("page.html").render(
        report=report,
        totals=report.totals(),
        settings=_settings(report),
        widths=_widths(report.layers),
        worst=worst,
        squared_error=sum(layer.squared_error for layer in report.layers),
        unplotted=sum(1 for one in report.layers if not 0 < one.relative_error < math.inf),
        colors=figures.COLORS,
        charts=_charts(report),
        data=_data(report, date),
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


def _settings(report: Report) -> dict[str, str]:
    """How the results were made, as text; what differs by layer is said in the tables."""
    names = ("method", "zero_point", "scale_dtype")
    said = {name: report.settings.get(name) for name in names if name in report.settings}
    shown = {name: "by layer" if value is None else str(value) for name, value in said.items()}
    groups = {layer.group_size for layer in report.layers if layer.group_size is not None}
    if groups:
        shown["group_size"] = ", ".join(map(_scope, sorted(groups, key=size_order)))
    codings = Counter(layer.coding or INTEGER for layer in report.layers)
    if codings.keys() != {INTEGER}:
        shown["codes"] = ", ".join(f"{name} ({count})" for name, count in codings.most_common())
    shown["bit_width"] = ", ".join(map(str, figures.by_width(report.layers)))
    if "version" in report.settings:
        shown["quantized by"] = f"pyarrowquant {report.settings['version']}"
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


def _charts(report: Report) -> dict[str, Any]:
    charts = {
        "overview": figures.overview(report.layers),
        "weights-by-width": figures.weights_by_width(report.layers),
        "sizes": figures.sizes(report.layers),
    }
    for i, shown in enumerate(report.histograms):
        charts[f"histogram-{i}"] = figures.code_use(shown)
    described = {name: json.loads(figure.to_json()) for name, figure in charts.items()}
    for chart in described.values():
        chart["layout"].pop("template", None)  # the page has its own colors
    return described


def _data(report: Report, date: datetime) -> Any:
    """The numbers of the page, for programs."""
    layers = [
        {
            **asdict(layer),
            "bytes": layer.bytes,
            "bits_per_weight": layer.bits_per_weight,
            "signal_to_noise_db": layer.signal_to_noise_db,
        }
        for layer in report.layers
    ]
    return plain(
        {
            "result": report.result,
            "original": report.original,
            "date": date.isoformat(timespec="seconds"),
            "version": __version__,
            "settings": report.settings,
            "file_bytes": report.file_bytes,
            "original_bytes": report.original_bytes,
            "totals": report.totals(),
            "left_out": report.left_out,
            "layers": layers,
        }
    )
