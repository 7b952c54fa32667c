"use strict";
// A table that sorts by its headings and can be taken along as CSV.
// columns: [{ title, note, value(row), text(row) or node(row), number }]
nas.table = (columns, rows, { name, label, most = 100, current = () => false } = {}) => {
  const { el } = nas;
  let order = rows;
  let sorted = null;
  let limit = most;
  const body = el("tbody");

  const cell = (column, row) => {
    const content = column.node ? column.node(row) : column.text ? column.text(row) : String(column.value(row) ?? "");
    return el("td", { class: column.number ? "number" : column.wide ? "wide" : "" }, content);
  };
  const more = el("button", { type: "button", class: "plain", onclick: () => { limit = Infinity; fill(); } });
  function fill() {
    body.replaceChildren(...order.slice(0, limit).map((row) =>
      el("tr", { "aria-current": current(row) ? "true" : null }, columns.map((column) => cell(column, row)))));
    more.hidden = order.length <= limit;
    more.textContent = `Show all ${order.length.toLocaleString("en-US")}`;
  }
  function sort(column, head) {
    const down = sorted === column && head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    sorted = column;
    const known = (row) => { const v = column.value(row); return v !== null && v !== undefined && v !== "" && !Number.isNaN(v); };
    const way = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
    order = [...rows.filter(known).sort((a, b) => way(column.value(a), column.value(b))),
      ...rows.filter((row) => !known(row))];
    fill();
  }
  const heads = columns.map((column) => {
    const head = el("th", { scope: "col", class: column.number ? "number" : column.wide ? "wide" : "" });
    head.append(column.title ? el("button", { type: "button", onclick: () => sort(column, head) }, column.title) : "",
      column.note ? el("small", {}, column.note) : "");
    return head;
  });
  // A spreadsheet runs a cell that begins like a formula: text is kept from doing so.
  const quote = (value) => {
    if (typeof value === "number") return Number.isNaN(value) ? "" : String(value);
    const text = String(value ?? "");
    return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replace(/"/g, '""')}"`;
  };
  const csv = () => [columns.filter((c) => c.title).map((c) => quote(c.title)),
    ...order.map((row) => columns.filter((c) => c.title).map((c) => quote(c.value(row))))]
    .map((line) => line.join(",")).join("\r\n");
  fill();
  return el("div", { class: "table" },
    el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": label },
      el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, heads)), body)),
    el("p", { class: "after" }, more, rows.length ? el("button", { type: "button", class: "plain", onclick: () =>
      nas.save(`${name}.csv`, "text/csv", csv()) }, "Save as CSV") : ""));
};
