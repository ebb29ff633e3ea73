"""Reports in a real browser: `make test-browser`. `make test` leaves it out: it needs chromium."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cli.report.reports import HOSTILE, written
from commands import succeeded

from pyarrowquant import Recipe, Rule, numpy_to_arrow_table, quantize_batch_arrow
from pyarrowquant.cli._show import printable

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--window-size=1366,900",
    "--virtual-time-budget=20000",
]

# What a reader of the page does and sees, written into the page at the end.
READER = """
const seen = { alerts: [], violations: 0 };
window.alert = (text) => seen.alerts.push(text);
document.addEventListener("securitypolicyviolation", () => { seen.violations += 1; });
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const name = (row) => row.cells[0].textContent;
addEventListener("load", () => setTimeout(async () => {
  seen.charts = all("[data-chart]").map((chart) => [
    chart.dataset.chart,
    all(".points path, .point path", chart).length,
    all(".xtitle, .x2title, .ytitle, .y2title", chart).map((title) => title.textContent),
  ]);
  const ink = getComputedStyle(document.body).color;
  const labels = all(".xtick text, .ytick text, .x2tick text, .y2tick text, .legendtext");
  seen.labels = labels.length;
  seen.unreadable = labels.filter((text) => getComputedStyle(text).fill !== ink).length;
  seen.ground = getComputedStyle(document.body).backgroundColor;
  seen.wider = document.documentElement.scrollWidth > innerWidth;

  const overview = document.querySelector("[data-chart=overview]");
  seen.hover = [];
  seen.links = all("a").length;
  for (const [curveNumber, { x, yaxis }] of overview.data.entries()) {
    const shown = yaxis === "y" ? x.slice(0, 40) : [];
    for (const pointNumber of shown.keys()) {
      Plotly.Fx.hover(overview, [{ curveNumber, pointNumber }], "xy");
      await new Promise((done) => setTimeout(done, 70)); // not more often, says plotly
      seen.hover.push(...all(".hovertext", overview).map((text) => text.textContent));
      seen.links += all("a").length;
    }
  }

  const table = document.getElementById("all");
  const rows = () => [...table.tBodies[0].rows];
  const titles = all("thead button", table);
  const click = (title) => titles.find((button) => button.textContent === title).click();
  seen.sorted = {};
  for (const title of ["layer", "relative error", "shape"]) {
    click(title);
    seen.sorted[title] = rows().slice(0, 5).map(name);
    click(title);
    seen.sorted[title + ", again"] = rows().slice(0, 5).map(name);
  }
  const search = document.getElementById("search");
  search.value = SOUGHT;
  search.dispatchEvent(new Event("input"));
  seen.found = rows().filter((row) => row.offsetHeight > 0).map(name);
  seen.count = document.getElementById("found").textContent;
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
}, 3000));
"""


@pytest.fixture(scope="session")
def browser() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail("chromium is missing: apt-get install chromium, or set CHROMIUM to its path")
    return found


def look(browser: str, page: Path, folder: Path, sought: str, *options: str) -> dict[str, Any]:
    """Open the page, with a reader in it; the console must stay empty."""
    text = page.read_text(encoding="utf-8")
    (nonce,) = set(re.findall(r'<script nonce="([^"]+)"', text))
    reader = READER.replace("SOUGHT", json.dumps(sought))
    watched = folder / "watched.html"
    watched.write_text(
        text.replace("<style>", f'<script nonce="{nonce}">{reader}</script>\n<style>', 1),
        encoding="utf-8",
    )
    profile = folder / "profile"
    command = [browser, *OPTIONS, *options, f"--user-data-dir={profile}", "--dump-dom"]
    done = subprocess.run(
        [*command, watched.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    shutil.rmtree(profile, ignore_errors=True)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    said = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert said is not None, "the page was not read to its end"
    seen: dict[str, Any] = json.loads(html.unescape(said[1]))
    assert seen["alerts"] == []
    assert seen["violations"] == 0
    assert seen["requests"] == []
    assert seen["links"] == 0
    assert not seen["wider"]
    assert seen["labels"] > 20
    assert seen["unreadable"] == 0
    return seen


def results(names: list[str], folder: Path) -> tuple[Path, pa.Table]:
    """A page with the original weights, and the results that it shows."""
    rng = np.random.default_rng(3)
    table = numpy_to_arrow_table(
        {name: rng.standard_normal((8 + i % 3, 64), np.float32) for i, name in enumerate(names)}
    )
    recipe = Recipe([Rule("*1*", bit_width=3), Rule("*2*", bit_width=8)])
    result = quantize_batch_arrow(table, recipe=recipe, metrics=True, sort=False, method="mse")
    page = folder / "report.html"
    original = written(table, folder, "original.arrow")
    succeeded("report", written(result, folder), "--html", page, "--original", original)
    return page, result


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_reader_sees_charts_and_tables(browser: str, tmp_path: Path, scheme: str) -> None:
    names = [f"model.layers.{i}.weight" for i in range(40)]
    page, result = results(names, tmp_path)
    dark = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    seen = look(browser, page, tmp_path, "layers.3", dark)
    assert seen["ground"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 29)"}[scheme]
    charts = {chart: (marks, titles) for chart, marks, titles in seen["charts"]}
    assert len(charts) == 10
    assert set(charts["blocks"][1]) == {"block"}
    assert charts["overview"][0] >= 80  # error and bits of 40 layers
    assert set(charts["overview"][1]) >= {"relative error", "bits a weight"}
    assert charts["weights-by-width"][0] == 3
    assert charts["sizes"][0] == 9
    for i in range(6):
        assert charts[f"histogram-{i}"][0] == 8  # codes of 3 bits
        assert "code units: weight / scale + zero-point" in charts[f"histogram-{i}"][1]
    assert all(any(f"{name}layer" in text for text in seen["hover"]) for name in names)

    rows = result.to_pylist()
    by_error = [row["layer_name"] for row in sorted(rows, key=lambda row: row["relative_error"])]
    assert seen["sorted"]["relative error"] == by_error[::-1][:5]
    assert seen["sorted"]["relative error, again"] == by_error[:5]
    assert seen["sorted"]["layer"] == sorted(names)[:5]
    assert seen["sorted"]["layer, again"] == sorted(names)[::-1][:5]
    sizes = {row["layer_name"]: row["shape"][0] for row in rows}
    assert {sizes[name] for name in seen["sorted"]["shape"]} == {10}
    assert sorted(seen["found"]) == sorted(name for name in names if "layers.3" in name)
    assert seen["count"] == "11 layers"


def test_two_results_on_a_phone(browser: str, tmp_path: Path) -> None:
    names = [f"model.layers.{i}.{part}.weight" for i in range(20) for part in ("up", "down")]
    _, table = results(names, tmp_path)
    page, other = tmp_path / "both.html", written(table.slice(1), tmp_path, "other.arrow")
    succeeded("report", written(table, tmp_path), other, "--html", page)
    seen = look(browser, page, tmp_path, "layers.3.", "--window-size=500,900")
    charts = {chart: (marks, titles) for chart, marks, titles in seen["charts"]}
    assert charts["beside"][0] == 2 * (len(names) - 1)
    assert {"blocks", "blocks-beside"} < charts.keys()
    assert sorted(seen["found"]) == ["model.layers.3.down.weight", "model.layers.3.up.weight"]


def test_hostile_names_do_nothing(browser: str, tmp_path: Path) -> None:
    page, _ = results(HOSTILE, tmp_path)
    seen = look(browser, page, tmp_path, "<img")
    assert seen["found"] == [HOSTILE[1]]
    for name in HOSTILE:
        assert any(text.startswith(f"{printable(name)}layer ") for text in seen["hover"])


def test_thousands_of_layers(browser: str, tmp_path: Path) -> None:
    names = [f"model.layers.{i}.weight" for i in range(3000)]
    page, _ = results(names, tmp_path)
    seen = look(browser, page, tmp_path, "layers.2999.")
    charts = {chart: marks for chart, marks, _ in seen["charts"]}
    assert charts["overview"] >= 6000
    assert seen["found"] == ["model.layers.2999.weight"]
