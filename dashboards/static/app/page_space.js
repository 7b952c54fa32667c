"use strict";
nas.pages.space = {
  title: "Space", study: true,
  async make(main, query) {
    const { el, plot } = nas;
    const study = query.get("study");
    const view = await nas.get("space", { study, metric: query.get("metric") || "" });
    const picked = view.decisions.find((d) => d.decision === query.get("d")) || view.decisions[0];
    const top = view.decisions.filter((d) => d.share !== null).slice(0, 15).reverse();
    const chart = plot.figure("Importance of decisions; the table gives it in numbers", Math.max(200, 60 + 26 * top.length));
    const options = plot.figure("Options of the chosen decision", 320);
    const choose = (name) => { nas.keep({ d: name }); nas.show(); };
    const columns = [
      { title: "Decision", value: (d) => d.decision, node: (d) => el("button", { type: "button", class: "link", onclick: () => choose(d.decision) }, el("code", {}, d.decision)) },
      { title: "Explains", note: "of the variance", number: true, value: (d) => (d.share === null ? NaN : d.share), text: (d) => (d.share === null ? "too few" : `${(100 * d.share).toFixed(0)} %`) },
      { title: "Options met", value: (d) => d.options.map((o) => `${o.option} (${o.count})`).join(", "), wide: true },
    ];
    main.replaceChildren(el("h1", {}, "Space ", el("small", {}, view.space)),
      el("p", { class: "lead" }, `What each decision did to ${view.metric.label.toLowerCase()}, over ${view.count.toLocaleString("en-US")} candidates evaluated in full.`),
      el("div", { class: "controls" }, nas.select("Figure", view.objectives.map((m) => [m.name, m.label]), view.metric.name, (v) => { nas.keep({ metric: v }); nas.show(); })),
      el("div", { class: "pair" },
        nas.card("Importance", top.length ? chart : el("p", { class: "note" }, `Two options of a decision need ${view.fewest} candidates each.`), el("p", { class: "note" }, "Share of the figure's variance between the options of one decision alone (epsilon squared). A search does not draw at random: decisions that went together share their credit, and few candidates make it uncertain. Options with fewer than five candidates are left out.")),
        nas.card(picked ? picked.decision : "", picked ? options : "", el("p", { class: "note" }, `Mean of the candidates with each option, bars one standard error either way; none below ${view.fewest} candidates.`))),
      nas.card("All decisions", nas.table(columns, view.decisions, { name: `${study}-space`, label: "Decisions", current: (d) => d === picked })));
    if (top.length) {
      await plot.draw(chart, [{ type: "bar", orientation: "h", x: top.map((d) => d.share), y: top.map((d) => plot.plain(d.decision, 34)), marker: { color: top.map((d) => plot.colour(d === picked ? "ring" : "accent")) }, hovertemplate: "%{y}: %{x:.0%}<extra></extra>" }],
        { xaxis: plot.axis(null, { tickformat: ".0%", rangemode: "tozero" }), yaxis: plot.axis(null, { type: "category", tickformat: "" }), margin: { l: 170, r: 16, t: 8, b: 40 }, bargap: 0.35, showlegend: false }, `${study}-importance`);
      if (chart.on) chart.on("plotly_click", (event) => choose(top[event.points[0].pointIndex].decision));
    }
    if (picked) {
      await plot.draw(options, [{ type: "scatter", mode: "markers+text", x: picked.options.map((o) => plot.plain(o.option, 20)), y: picked.options.map((o) => o.mean), text: picked.options.map((o) => `n ${o.count}`), textposition: "top center", textfont: { size: 11, color: plot.colour("muted") }, cliponaxis: false,
        marker: { size: 11, color: plot.colour("accent") }, error_y: { type: "data", array: picked.options.map((o) => o.error || 0), color: plot.colour("bar"), thickness: 1.5, width: 4 }, hovertemplate: "%{x}: %{y:.4~g}<extra></extra>" }],
        { xaxis: plot.axis(null, { type: "category", tickformat: "" }), yaxis: plot.axis(view.metric), margin: { l: 74, r: 16, t: 26, b: 44 }, showlegend: false }, `${study}-options`);
    }
  },
};
