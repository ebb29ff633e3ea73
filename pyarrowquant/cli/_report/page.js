"use strict";

// Charts, in the colors of the page.
const charts = JSON.parse(document.getElementById("charts").textContent);
const config = { responsive: true, displayModeBar: false };

function colors() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const changes = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    "font.color": color("--text"),
    "font.family": getComputedStyle(document.body).fontFamily,
    "hoverlabel.bgcolor": color("--raised"),
    "hoverlabel.bordercolor": color("--line"),
    "hoverlabel.font.color": color("--text"),
    "hoverlabel.align": "left",
  };
  for (const axis of ["xaxis", "xaxis2", "yaxis", "yaxis2"]) {
    changes[axis + ".gridcolor"] = color("--line");
    changes[axis + ".zerolinecolor"] = color("--line");
    changes[axis + ".linecolor"] = color("--quiet");
  }
  return changes;
}

function recolor(chart) {
  const changes = Object.entries(colors());
  const there = (name) => !/^[xy]axis/.test(name) || name.split(".")[0] in chart.layout;
  const layout = Object.fromEntries(changes.filter(([name]) => there(name)));
  const lines = [...chart.data.keys()].filter((i) => chart.data[i].mode === "lines");
  const traces = lines.length ? { "line.color": layout["font.color"] } : {};
  return Plotly.update(chart, traces, layout, lines);
}

const drawn = [...document.querySelectorAll("[data-chart]")];
for (const chart of drawn) {
  const { data, layout } = charts[chart.dataset.chart];
  Plotly.newPlot(chart, data, layout, config).then(recolor);
}
for (const query of ["(prefers-color-scheme: dark)", "print"]) {
  matchMedia(query).addEventListener("change", () => drawn.forEach(recolor));
}

// Tables that sort by the title that is clicked: numbers the largest first.
function key(cell) {
  const text = cell.dataset.value ?? cell.textContent;
  const number = text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text);
  return cell.tagName === "TH" || Number.isNaN(number) ? text : number;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    title.firstElementChild.addEventListener("click", () => {
      const first = column === 0 ? "ascending" : "descending";
      const second = column === 0 ? "descending" : "ascending";
      const order = title.ariaSort === first ? second : first;
      const sign = order === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
      rows.sort(([a], [b]) => sign * (a < b ? -1 : a > b ? 1 : 0));
      body.append(...rows.map(([, row]) => row));
      titles.forEach((other) => { other.ariaSort = null; });
      title.ariaSort = order;
    });
  });
}

// Search in the names of layers.
const search = document.getElementById("search");
const rows = [...document.querySelectorAll("#all tbody tr")];
const names = rows.map((row) => row.cells[0].textContent.toLowerCase());
search.addEventListener("input", () => {
  const wanted = search.value.trim().toLowerCase();
  let found = 0;
  rows.forEach((row, i) => {
    row.hidden = !names[i].includes(wanted);
    found += row.hidden ? 0 : 1;
  });
  document.getElementById("found").value = `${found.toLocaleString("en")} layers`;
});
