"use strict";
nas.pages.compare = {
  title: "Compare", study: true,
  async make(main, query) {
    const { el } = nas;
    const study = query.get("study");
    const field = el("input", { type: "text", value: query.get("t") || "", placeholder: "3, 17, 21", inputmode: "numeric", "aria-label": "Trials to compare, two to four numbers" });
    const ask = el("form", { class: "controls", onsubmit: (event) => { event.preventDefault(); nas.go("compare", { study, t: field.value.replace(/[^0-9,]/g, "") }); } },
      el("label", { class: "field" }, el("span", {}, "Trials"), field), el("button", { type: "submit" }, "Compare"));
    const head = [el("h1", {}, "Compare ", el("small", {}, study)), ask];
    if (!query.get("t")) { main.replaceChildren(...head, el("p", { class: "note" }, "Give the numbers of two to four trials, or mark candidates in the table of the front.")); return; }
    const numbers = query.get("t").split(",").map((word) => word.trim()).filter(Boolean);
    let view;
    if (nas.embedded) { main.replaceChildren(...head, el("p", { class: "note" }, "A report holds single pages; the dashboard compares.")); return; }
    try {
      view = await nas.get("compare", { study, trials: numbers.join(",") });
    } catch (problem) { main.replaceChildren(...head, nas.error(problem)); return; }
    const { trials, rows } = view;
    const names = [...new Map(trials.flatMap((t) => t.figures.map((f) => [f.metric.name, f.metric]))).values()];
    const figure = (trial, name) => trial.figures.find((f) => f.metric.name === name);
    const best = (metric) => {
      const values = trials.map((t) => figure(t, metric.name)?.value).filter(Number.isFinite);
      return metric.direction === "min" ? Math.min(...values) : Math.max(...values);
    };
    const overlap = (metric) => {
      const known = trials.map((t) => figure(t, metric.name)).filter(Boolean);
      if (known.length < 2 || known.some((f) => f.low === null || f.high === null)) return "";
      return Math.max(...known.map((f) => f.low)) <= Math.min(...known.map((f) => f.high)) ? "all spreads overlap" : "not all spreads overlap";
    };
    const link = (trial) => el("a", { href: nas.link("trial", { study, n: trial.number }) }, `Trial ${trial.number}`);
    const table = el("table", { "aria-label": "Figures side by side" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Figure"), trials.map((t) => el("th", { scope: "col", class: "number" }, link(t))))),
      el("tbody", {}, names.map((metric) => el("tr", {}, el("th", { scope: "row" }, metric.title, el("small", {}, [metric.wish, overlap(metric)].filter(Boolean).join("; "))), trials.map((trial) => {
        const found = figure(trial, metric.name);
        if (!found) return el("td", { class: "number" }, "");
        const top = found.value === best(metric);
        const ends = nas.ends(metric, found.low, found.high);
        return el("td", { class: "number" }, top ? el("b", {}, nas.number(metric, found.value)) : nas.number(metric, found.value), ends ? el("small", {}, ends) : "");
      })))));
    const differ = rows.filter((row) => !row.same).length;
    const cells = (row) => row.layers.map((place, i) => {
      if (place === null) return el("td", { class: "gap" }, "\u2014");
      const layer = trials[i].layers[place];
      return el("td", {}, el("code", {}, layer.op), el("small", {}, `${layer.shape.join("\u00d7")}${layer.params ? `, ${layer.params.toLocaleString("en-US")} parameters` : ""}${layer.variant ? `, ${layer.variant}` : ""}`));
    });
    const aligned = el("table", { class: "aligned", "aria-label": "Layers aligned" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "hidden" }, "Differs")), trials.map((t) => el("th", { scope: "col" }, link(t))))),
      el("tbody", {}, rows.map((row) => el("tr", { class: row.same ? "same" : "differs" }, el("td", { class: "mark" }, row.same ? "" : el("span", { title: "differs" }, "\u2260", el("span", { class: "hidden" }, " differs"))), cells(row)))));
    main.replaceChildren(...head, nas.card("Figures", el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures side by side" }, table)),
      nas.card("Layers", el("p", { class: "note" }, `${differ} of ${rows.length} rows differ; they are marked with \u2260. A dash: no such layer.`), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Layers aligned" }, aligned)));
  },
};
