"use strict";
(() => {
  const page = JSON.parse(document.getElementById("figure-data").textContent);
  const night = matchMedia("(prefers-color-scheme: dark)");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const status = document.getElementById("picked");
  const body = document.querySelector("tbody");
  const divs = [...document.querySelectorAll("[data-figure]")];
  const nightColours = new Map(Object.entries(page.dark));
  let picked = null;

  // Figures come in light colours; each string that is exactly one of them becomes its dark twin.
  const figure = (name) =>
    JSON.parse(page.figures[name], (_, value) =>
      night.matches && nightColours.has(value) ? nightColours.get(value) : value);

  const draw = () =>
    Promise.all(divs.map((div) => {
      const { data, layout } = figure(div.dataset.figure);
      for (const trace of data) {
        if (trace.customdata) trace.hovertext = trace.customdata.map((key) => page.hover[key]);
      }
      return Plotly.react(div, data, layout, page.config);
    })).then(ring);

  // Fill the empty ring trace of each panel with the picked candidate.
  function ring() {
    for (const div of divs) {
      div.data.forEach((trace, index) => {
        if (trace.meta !== page.ring || picked === null) return;
        const x = [], y = [];
        for (const other of div.data) {
          if (other.xaxis !== trace.xaxis) continue;
          (other.customdata || []).forEach((key, place) => {
            if (key === picked) { x.push(other.x[place]); y.push(other.y[place]); }
          });
        }
        Plotly.restyle(div, { x: [x], y: [y] }, [index]);
      });
    }
  }

  function pick(key, scroll) {
    picked = key;
    ring();
    let found = null;
    for (const row of body.rows) {
      if (row.dataset.key === key) { found = row; row.setAttribute("aria-current", "true"); }
      else row.removeAttribute("aria-current");
    }
    const short = key.slice(0, page.digits);
    status.textContent = found
      ? `Candidate ${short} is picked: ringed in the figure, marked in the table.`
      : `Candidate ${short} is dominated, so it has no row in the table of the front.`;
    if (found && scroll) {
      found.scrollIntoView({ block: "center", behavior: calm.matches ? "auto" : "smooth" });
    }
  }

  function sort(head) {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[head.cellIndex].dataset.sort;
    const number = head.dataset.number !== undefined;
    const order = (a, b) => (number ? a - b : a < b ? -1 : a > b ? 1 : 0);
    const known = [...body.rows].filter((row) => value(row) !== "");
    const unknown = [...body.rows].filter((row) => value(row) === "");
    known.sort((a, b) => (down ? -1 : 1) * order(value(a), value(b)));
    body.append(...known, ...unknown);
  }

  document.querySelector("thead").addEventListener("click", (event) => {
    if (event.target.closest("button")) sort(event.target.closest("th"));
  });
  body.addEventListener("click", (event) => {
    if (event.target.closest("button")) pick(event.target.closest("tr").dataset.key, false);
  });
  night.addEventListener("change", draw);
  draw().then(() => {
    for (const div of divs) {
      div.on("plotly_click", (event) => {
        const key = event.points && event.points[0] && event.points[0].customdata;
        if (typeof key === "string") pick(key, true);
      });
    }
  });
})();
