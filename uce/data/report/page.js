"use strict";
// Tables can be sorted, searched and saved, pictures can be saved; without this script the page reads the same.
const make = (name, properties) => Object.assign(document.createElement(name), properties);
const save = (address, name) => make("a", { href: address, download: name }).click();
const shown = (cell) => cell.textContent.trim();
const value = (cell) => cell.dataset.value ?? shown(cell);

function sort(table, column, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: value(row.cells[column]) }));
  const there = rows.filter(({ key }) => key !== "");
  const numeric = there.every(({ key }) => !Number.isNaN(Number(key)));
  const order = numeric ? (a, b) => a.key - b.key : (a, b) => a.key.localeCompare(b.key, undefined, { numeric: true });
  there.sort((a, b) => (down ? order(b, a) : order(a, b)));
  table.tBodies[0].append(...there.concat(rows.filter(({ key }) => key === "")).map(({ row }) => row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
}

function download(table) {
  const clean = (text) => text.replace(/\s+/g, " ");
  const lines = [...table.rows].map((row) => [...row.cells].map((cell) => clean(value(cell))).join("\t"));
  const address = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/tab-separated-values" }));
  save(address, `${table.id}.tsv`);
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function search(table, words) {
  const wanted = words.toLowerCase().split(/\s+/);
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !wanted.every((word) => text.includes(word));
  }
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = make("button", { type: "button", textContent: shown(heading), title: "sort" });
    heading.dataset.value = shown(heading);
    heading.replaceChildren(button);
    button.addEventListener("click", () => sort(table, column, heading));
  });
  const tools = make("div", { className: "tools" });
  if (table.tBodies[0].rows.length > 20) {
    const field = make("input", { type: "search", placeholder: "filter rows", ariaLabel: `filter rows of ${table.id}` });
    field.addEventListener("input", () => search(table, field.value));
    tools.append(field);
  }
  const button = make("button", { type: "button", textContent: "Save as TSV" });
  button.addEventListener("click", () => download(table));
  tools.append(button);
  table.closest(".table").querySelector(".head").append(tools);
}

for (const picture of document.querySelectorAll("figure img")) {
  const kind = picture.src.startsWith("data:image/svg") ? "svg" : "png";
  const button = make("button", { type: "button", textContent: "Save picture" });
  button.addEventListener("click", () => save(picture.src, `${picture.closest("figure").id}.${kind}`));
  picture.closest("figure").querySelector("figcaption").append(" ", button);
}
