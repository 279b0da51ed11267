"use strict";
document.documentElement.classList.add("js");

// What a cell sorts by: its number where it has one (NaN where that is missing), else its words.
function key(row, column) {
  const cell = row.cells[column];
  return "v" in cell.dataset ? parseFloat(cell.dataset.v) : cell.textContent.trim();
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(table, head, column) {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = Array.from(table.tBodies[0].rows, (row) => [key(row, column), row]);
  // What is missing comes last in both directions.
  const known = rows.filter(([value]) => !Number.isNaN(value)), missing = rows.filter(([value]) => Number.isNaN(value));
  known.sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
  table.tBodies[0].append(...known.concat(missing).map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortBy(table, head, column));
  });
}

for (const form of document.querySelectorAll("form.filter")) {
  const rows = Array.from(document.getElementById(form.dataset.table).tBodies[0].rows);
  const choices = Array.from(form.querySelectorAll("select")), text = form.querySelector("input");
  function filter() {
    const wanted = text.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = choices.every((choice) => !choice.value || row.cells[choice.dataset.column].textContent === choice.value)
        && (!wanted || row.textContent.toLowerCase().includes(wanted));
      row.hidden = !fits;
      shown += fits;
    }
    form.querySelector("output").textContent = shown + " of " + rows.length + " rows";
    hint();
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
}

// The hint that a box scrolls is shown where it does.
function hint() {
  for (const box of document.querySelectorAll(".scroll")) {
    const cut = box.scrollWidth > box.clientWidth + 1;
    box.previousElementSibling.classList.toggle("needed", cut);
  }
}
window.addEventListener("resize", hint);
window.addEventListener("load", hint);
document.addEventListener("toggle", hint, true);
