"use strict";
// A click on a column's head sorts the rows by what their cells hold in data-value or, failing that, as text.

const cellValue = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();

function sortBy(table, head) {
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const order = head.classList.contains("words")
    ? (a, b) => a.localeCompare(b, "en", { numeric: true })
    : (a, b) => Number(a) - Number(b);
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: cellValue(row, head.cellIndex) }));
  // What is not known comes last, whichever way.
  rows.sort((a, b) => (a.value && b.value ? sign * order(a.value, b.value) : !a.value - !b.value));
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    head.querySelector("button").addEventListener("click", () => sortBy(table, head));
  }
}
