"""Two pictures of a run of quality.py, from its JSON.

python tests/bench/plots.py build/quality.json docs
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RTN = "pyarrowquant rtn"
Record = dict[str, Any]
# Colours that the colour-blind can tell apart, ours strong; marks differ as well.
STYLES = {
    RTN: ("#111111", "o"),
    "pyarrowquant mse": ("#d55e00", "o"),
    "pyarrowquant hqq": ("#e69f00", "o"),
    "ggml": ("#56b4e9", "s"),
    "ggml K": ("#0072b2", "s"),
    "MLX": ("#009e73", "^"),
    "torch HQQ": ("#cc79a7", "D"),
    "llm-compressor minmax": ("#8c8c8c", "v"),
    "llm-compressor mse": ("#8c564b", "v"),
    "bitsandbytes NF4": ("#7b4ab5", "P"),
}


def write_plots(record: Record, folder: Path) -> None:
    """Write error-per-bit.png and error-speed.png."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = by_data(record)
    error_per_bit(sets, folder / "error-per-bit.png")
    error_speed(sets, folder / "error-speed.png")


def by_data(record: Record) -> dict[str, list[Record]]:
    sets: dict[str, list[Record]] = {}
    for quality in record["qualities"]:
        sets.setdefault(quality["data"], []).append(quality)
    return sets


def error_per_bit(sets: dict[str, list[Record]], path: Path) -> None:
    """Relative error, and the same in multiples of the limit of all codes, against bits."""
    figure, axes = grid(2, sets, height=9.5)
    for column, (data, qualities) in zip(axes.T, sets.items(), strict=True):
        upper, lower = column
        upper.set_title(data)
        upper.set_yscale("log")
        upper.plot([2, 8.6], [2**-2, 2**-8.6], color="#bbbbbb", linestyle="--", linewidth=1)
        scatter(upper, qualities, lambda quality: (quality["bits"], quality["error"]))
        small = [quality for quality in qualities if quality["bits"] < 5.6]
        scatter(
            lower,
            small,
            lambda quality: (quality["bits"], quality["error"] * 2 ** quality["bits"]),
        )
        lower.set_xlabel("bits a weight, all metadata counted")
    axes[0, 0].set_ylabel("relative error (dashed: 2^-bits)")
    axes[1, 0].set_ylabel("relative error, in multiples of 2^-bits")
    save(figure, axes[0, 0], path)


def error_speed(sets: dict[str, list[Record]], path: Path) -> None:
    """Error relative to rtn's at as many bits, against speed."""
    figure, axes = grid(1, sets, height=6)
    for axis, (data, qualities) in zip(axes[0], sets.items(), strict=True):
        rtn_error = rtn_errors(qualities)
        axis.set_title(data)
        axis.set_xscale("log")
        axis.axhline(1, color="#bbbbbb", linestyle="--", linewidth=1)
        scatter(
            axis,
            qualities,
            lambda quality, rtn_error=rtn_error: (
                quality["nbytes"] / float(np.median(quality["times"])) / 1e9,
                quality["error"] / rtn_error(quality["bits"]),
            ),
        )
        axis.set_xlabel("GB/s of float32 input, 2 threads")
    axes[0, 0].set_ylabel("error / error of rtn at as many bits")
    save(figure, axes[0, 0], path)


def rtn_errors(qualities: list[Record]) -> Callable[[float], float]:
    """The error of rtn with a float zero-point and groups of 128, between its widths as well.

    Its logarithm is all but a straight line of the bits; beyond the widths a bit halves it.
    """
    main = [q for q in qualities if q["family"] == RTN and q["name"].endswith("float, g 128")]
    bits = np.array([quality["bits"] for quality in main])
    logarithms = np.log2([quality["error"] for quality in main])

    def error(at: float) -> float:
        inside = float(np.clip(at, bits.min(), bits.max()))
        return float(2 ** (np.interp(inside, bits, logarithms) - (at - inside)))

    return error


def scatter(
    axis: Any, qualities: list[Record], position: Callable[[Record], tuple[float, float]]
) -> None:
    """A mark for each quantizer; a line through the widths of each method with groups of 128."""
    for family, (color, mark) in STYLES.items():
        members = [quality for quality in qualities if quality["family"] == family]
        if not members:
            continue
        points = np.array([position(quality) for quality in members])
        axis.scatter(*points.T, s=26, color=color, marker=mark, label=family, zorder=3, alpha=0.85)
        main = [q for q in members if family.startswith("pyarrow") and "float, g 128" in q["name"]]
        if main:
            line = np.array([position(q) for q in main if not q["name"].endswith("float32")])
            axis.plot(*line.T, color=color, linewidth=1, zorder=2)
        annotate(axis, members, points, color)


def annotate(axis: Any, members: list[Record], points: np.ndarray, color: str) -> None:
    for quality, (x, y) in zip(members, points, strict=True):
        axis.annotate(
            short(quality["name"]),
            (x, y),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=5.5,
            color=color,
        )


def short(name: str) -> str:
    """The width only, where the legend says the rest."""
    return name.split(" bits")[0].split(" ")[-1]


def grid(rows: int, sets: dict[str, list[Record]], height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot.subplots(
        rows, len(sets), figsize=(11, height), squeeze=False, sharey="row", layout="constrained"
    )


def save(figure: Any, first: Any, path: Path) -> None:
    from matplotlib import pyplot

    for axis in figure.axes:
        axis.grid(color="#eeeeee", zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="what quality.py wrote")
    parser.add_argument("folder", type=Path, help="where to write the pictures")
    arguments = parser.parse_args()
    write_plots(json.loads(arguments.json.read_text()), arguments.folder)


if __name__ == "__main__":
    main()
