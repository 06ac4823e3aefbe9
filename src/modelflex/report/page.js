"use strict";

// Draw every plot that the page holds.
const figures = JSON.parse(document.getElementById("figures").textContent);
for (const element of document.querySelectorAll("[data-figure]")) {
  const figure = figures[element.dataset.figure];
  for (const trace of figure.data) {
    // One text for each recipe, in whichever panels its point stands.
    if (trace.customdata) trace.text = trace.customdata.map((number) => figure.layout.meta.hover[number]);
  }
  Plotly.newPlot(element, figure.data, figure.layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: element.dataset.figure === "pareto",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  }).catch((reason) => noteError(reason));
}

// Paper is narrower than the screen.
for (const [event, width] of [["beforeprint", 680], ["afterprint", null]]) {
  window.addEventListener(event, () => {
    for (const element of document.querySelectorAll(".js-plotly-plot")) {
      Plotly.relayout(element, width ? { width, autosize: false } : { width: null, autosize: true });
    }
  });
}

// Paper cannot be unfolded.
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});

// One link for each section.
for (const section of document.querySelectorAll("main section[id]")) {
  const link = document.createElement("a");
  link.href = "#" + section.id;
  link.textContent = section.querySelector("h2").textContent;
  document.getElementById("contents").append(link);
}

// Sort by a column: numbers by value, texts by letter, what is unknown always last.
function sortTable(table, column, direction) {
  const body = table.tBodies[0];
  const key = (row) => {
    const cell = row.cells[column];
    if ("sort" in cell.dataset) return Number(cell.dataset.sort);
    return cell.textContent === "—" ? null : cell.textContent;
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return direction * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
  };
  body.append(...[...body.rows].sort(compare));
}

for (const head of document.querySelectorAll("table.sortable th")) {
  head.tabIndex = 0;
  const sort = () => {
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    sortTable(head.closest("table"), head.cellIndex, direction);
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
}

for (const input of document.querySelectorAll("[data-filter]")) {
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of document.getElementById(input.dataset.filter).tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
}

document.documentElement.dataset.ready = "yes";
