"use strict";
// A table that sorts by its headings and can be taken along as CSV.
// columns: [{ title, note, value(row), text(row) or node(row), number, wide, wraps }]; one without
// a title is not in the CSV; it has a `spoken` one. How a table is sorted and unfolded stays when
// its page is made anew.
nas.table = (() => {
  const { el } = nas;
  const left = new Map(); // by name, as the reader left it

  // A spreadsheet runs a cell that begins like a formula: text is kept from doing so.
  function quote(value) {
    if (typeof value === "number") return Number.isNaN(value) ? "" : String(value);
    const text = String(value ?? "");
    return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replace(/"/g, '""')}"`;
  }
  function csv(columns, rows) {
    const named = columns.filter((column) => column.title);
    const lines = [
      named.map((column) => quote(column.title)),
      ...rows.map((row) => named.map((column) => quote(column.value(row)))),
    ];
    return lines.map((line) => line.join(",")).join("\r\n");
  }

  const kind = (column) => ["number", "wide", "wraps"].find((look) => column[look]) || "";
  function cell(column, row) {
    if (column.node) return column.node(row);
    return column.text ? column.text(row) : String(column.value(row) ?? "");
  }
  const known = (value) =>
    value !== null && value !== undefined && value !== "" && !Number.isNaN(value);

  function sorted(columns, rows, { by, down }) {
    const column = columns.find((item) => item.title === by);
    if (!column) return rows;
    const way = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
    const has = (row) => known(column.value(row));
    return [
      ...rows.filter(has).sort((a, b) => way(column.value(a), column.value(b))),
      ...rows.filter((row) => !has(row)),
    ];
  }

  return (columns, rows, { name, label, most = 100, mark = () => "" } = {}) => {
    const state = left.get(name) || { by: null, down: false, all: false };
    left.set(name, state);
    const body = el("tbody");
    const more = el("button", {
      type: "button",
      class: "plain",
      onclick: () => {
        state.all = true;
        fill();
      },
    });
    const heads = columns.map((column) =>
      el(
        "th",
        { scope: "col", class: kind(column) },
        column.title
          ? el("button", { type: "button", onclick: () => sort(column) }, column.title)
          : "",
        column.note ? el("small", {}, column.note) : "",
        column.spoken ? el("span", { class: "hidden" }, column.spoken) : "",
      ),
    );

    function fill() {
      columns.forEach((column, at) => {
        if (column.title && column.title === state.by) {
          heads[at].setAttribute("aria-sort", state.down ? "descending" : "ascending");
        } else heads[at].removeAttribute("aria-sort");
      });
      const order = sorted(columns, rows, state);
      const shown = state.all ? order : order.slice(0, most);
      body.replaceChildren(
        ...shown.map((row) =>
          el(
            "tr",
            { class: mark(row) },
            columns.map((column) => el("td", { class: kind(column) }, cell(column, row))),
          ),
        ),
      );
      more.hidden = shown.length === rows.length;
      more.textContent = `Show all ${nas.count(rows.length)}`;
    }
    function sort(column) {
      state.down = state.by === column.title && !state.down;
      state.by = column.title;
      fill();
    }
    fill();

    const take = () =>
      nas.save(`${name}.csv`, "text/csv", csv(columns, sorted(columns, rows, state)));
    const button = el(
      "button",
      {
        type: "button",
        class: "plain",
        "aria-label": `Save the table ${label} as CSV`,
        onclick: take,
      },
      "CSV",
    );
    return el(
      "div",
      { class: "table" },
      el(
        "div",
        { class: "scroll", role: "region", tabindex: "0", "aria-label": label },
        el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, heads)), body),
      ),
      el(
        "p",
        { class: "after save" },
        more,
        rows.length ? el("span", {}, "Save as") : "",
        rows.length ? button : "",
      ),
    );
  };
})();
