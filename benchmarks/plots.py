"""Two pictures of a run of quality.py, from its JSON.

python benchmarks/plots.py build/quality.json docs
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OWN = "pyarrowquant"
RTN = "pyarrowquant rtn"
Record = dict[str, Any]
LEFT_LOW, LEFT_HIGH, RIGHT_LOW, RIGHT_HIGH = (-4, -7), (-4, 3), (4, -7), (4, 3)
# Colour, mark, and where a name stands: some marks share a place. Colours are those that the
# colour-blind can tell apart, as far as they go.
STYLES = {
    RTN: ("#111111", "o", LEFT_LOW),
    "pyarrowquant mse": ("#d55e00", "o", LEFT_LOW),
    "pyarrowquant hqq": ("#e69f00", "o", LEFT_HIGH),
    "pyarrowquant fit": ("#a50026", "*", LEFT_HIGH),
    "ggml": ("#56b4e9", "s", RIGHT_HIGH),
    "ggml K": ("#0072b2", "s", RIGHT_HIGH),
    "MLX": ("#009e73", "^", RIGHT_LOW),
    "torch HQQ": ("#cc79a7", "D", RIGHT_LOW),
    "llm-compressor minmax": ("#8c8c8c", "v", RIGHT_HIGH),
    "llm-compressor mse": ("#8c564b", "v", RIGHT_HIGH),
    "bitsandbytes NF4": ("#7b4ab5", "P", RIGHT_HIGH),
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
        scatter(upper, qualities, lambda quality: (quality["bits"], quality["error"]), names=False)
        few = [quality for quality in qualities if quality["bits"] < 5.6]
        scatter(lower, few, lambda one: (one["bits"], one["error"] * 2 ** one["bits"]))
        lower.margins(x=0.1)
        lower.set_xlabel("bits a weight, all metadata counted")
    axes[0, 0].set_ylabel("relative error (dashed: $2^{-bits}$, the limit)")
    axes[1, 0].set_ylabel("relative error, in multiples of the limit")
    save(figure, path)


def error_speed(sets: dict[str, list[Record]], path: Path) -> None:
    """Error relative to rtn's at as many bits, against speed, of all that take 4 to 5 bits."""
    figure, axes = grid(1, sets, height=6)
    for axis, (data, qualities) in zip(axes[0], sets.items(), strict=True):
        rtn_error = rtn_errors(qualities)

        def position(quality: Record, rtn_error: Any = rtn_error) -> tuple[float, float]:
            rate = quality["nbytes"] / float(np.median(quality["times"])) / 1e9
            return rate, quality["error"] / rtn_error(quality["bits"])

        axis.set_title(f"{data}, 4 to 5 bits a weight")
        axis.set_xscale("log")
        axis.axhline(1, color="#bbbbbb", linestyle="--", linewidth=1)
        scatter(axis, [quality for quality in qualities if 4 <= quality["bits"] <= 5], position)
        axis.margins(x=0.1)
        axis.set_xlabel("GB/s of float32 input, 2 threads")
    axes[0, 0].set_ylabel("error / error of rtn at as many bits")
    save(figure, path)


def rtn_errors(qualities: list[Record]) -> Callable[[float], float]:
    """The error of rtn with a float zero-point and groups of 128, between its widths as well.

    Its logarithm is all but a straight line of the bits; beyond the widths a bit halves it.
    """
    main = [quality for quality in qualities if quality["family"] == RTN and is_main(quality)]
    bits = np.array([quality["bits"] for quality in main])
    logarithms = np.log2([quality["error"] for quality in main])

    def error(at: float) -> float:
        inside = float(np.clip(at, bits.min(), bits.max()))
        return float(2 ** (np.interp(inside, bits, logarithms) - (at - inside)))

    return error


def scatter(
    axis: Any,
    qualities: list[Record],
    position: Callable[[Record], tuple[float, float]],
    names: bool = True,
) -> None:
    """A mark for each quantizer; a line through the widths of each of our methods."""
    for family, (color, mark, offset) in STYLES.items():
        members = [quality for quality in qualities if quality["family"] == family]
        if not members:
            continue
        points = [position(quality) for quality in members]
        axis.scatter(
            *zip(*points, strict=True),
            s=26,
            color=color,
            marker=mark,
            label=family,
            zorder=3,
            alpha=0.85,
        )
        main = [position(quality) for quality in members if is_main(quality)]
        if main:
            axis.plot(*zip(*main, strict=True), color=color, linewidth=1, zorder=2)
        for quality, point in zip(members, points, strict=True):
            text = short(quality) if names else ""
            annotate(axis, text, point, RIGHT_LOW if text == "int" else offset, color)


def is_main(quality: Record) -> bool:
    """One of our methods, with a float zero-point and groups of 128: all widths are measured."""
    return bool(quality["family"].startswith(OWN) and quality["name"].endswith("float, g 128"))


def annotate(
    axis: Any, text: str, point: tuple[float, float], offset: tuple[int, int], color: str
) -> None:
    axis.annotate(
        text,
        point,
        xytext=offset,
        ha="right" if offset[0] < 0 else "left",
        textcoords="offset points",
        fontsize=7,
        color=color,
    )


def short(quality: Record) -> str:
    """What is special: not what legend and axes say, nor groups of 128 and float zero-points."""
    text = quality["name"].removeprefix(quality["family"]).removeprefix("ggml")
    words = text.replace("bits, ", "bits,").split(",")
    special = [word.strip() for word in words if not word.endswith("bits")]
    brief = {"integer": "int", "symmetric": "sym", "float": "", "g 128": ""}
    return " ".join(brief.get(word, word.replace("g ", "g")) for word in special).strip()


def grid(rows: int, sets: dict[str, list[Record]], height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot.subplots(
        rows, len(sets), figsize=(11, height), squeeze=False, sharey="row", layout="constrained"
    )


def save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot
    from PIL import Image

    for axis in figure.axes:
        axis.grid(color="#eeeeee", zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    found = {}  # not every family is in every picture
    for axis in figure.axes:
        found.update(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    labels = [family for family in STYLES if family in found]
    handles = [found[family] for family in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    few_colors = Image.open(path).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    few_colors.save(path, optimize=True)  # half the size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="what quality.py wrote")
    parser.add_argument("folder", type=Path, help="where to write the pictures")
    arguments = parser.parse_args()
    write_plots(json.loads(arguments.json.read_text()), arguments.folder)


if __name__ == "__main__":
    main()
