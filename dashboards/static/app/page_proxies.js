"use strict";
nas.pages.proxies = {
  title: "Proxies", study: true,
  async make(main, query) {
    const { el, plot } = nas;
    const study = query.get("study");
    const view = await nas.get("proxies", { study });
    const known = view.rows.filter((row) => row.correlation);
    const picked = view.rows.find((row) => row.metric.name === query.get("p")) || view.rows[0];
    const chart = plot.figure("Rank correlations; the table gives them in numbers", Math.max(180, 70 + 34 * known.length));
    const cloud = plot.figure("The chosen figure against the target", 340);
    const choose = (name) => { nas.keep({ p: name }); nas.show(); };
    const columns = [
      { title: "Figure", value: (r) => r.metric.label, node: (r) => el("button", { type: "button", class: "link", onclick: () => choose(r.metric.name) }, r.metric.label) },
      { title: "Rank correlation", number: true, value: (r) => (r.correlation ? r.correlation.value : NaN), text: (r) => (r.correlation ? r.correlation.value.toFixed(2) : "too few, or all equal") },
      { title: "95 % interval", value: (r) => (r.correlation ? r.correlation.low : NaN), text: (r) => (r.correlation ? `${r.correlation.low.toFixed(2)} to ${r.correlation.high.toFixed(2)}` : "") },
      { title: "Candidates", number: true, value: (r) => r.count },
    ];
    main.replaceChildren(el("h1", {}, "Proxies ", el("small", {}, study)),
      el("p", { class: "lead" }, `How well each figure ranks the candidates that were evaluated in full, judged by ${view.target.label.toLowerCase()}.`),
      el("div", { class: "pair" },
        nas.card("Rank correlation", known.length ? chart : el("p", { class: "note" }, `From ${view.fewest} candidates on.`), el("p", { class: "note" }, "Spearman's, with a 95 % interval (Bonett and Wright). Only candidates that came through the funnel are counted, so a proxy that already dropped the poor ones looks weaker than it is.")),
        nas.card(picked ? `${picked.metric.label} and ${view.target.label.toLowerCase()}` : "", cloud)),
      nas.card("In numbers", nas.table(columns, view.rows, { name: `${study}-proxies`, label: "Rank correlations", current: (r) => r === picked })));
    if (known.length) {
      const rows = [...known].reverse();
      await plot.draw(chart, [{ type: "scatter", mode: "markers", x: rows.map((r) => r.correlation.value), y: rows.map((r) => plot.plain(r.metric.label, 28)), marker: { size: 11, color: plot.colour("accent") },
        error_x: { type: "data", symmetric: false, array: rows.map((r) => r.correlation.high - r.correlation.value), arrayminus: rows.map((r) => r.correlation.value - r.correlation.low), color: plot.colour("bar"), thickness: 1.5, width: 4 },
        hovertemplate: "%{y}: %{x:.2f}<extra></extra>" }],
      { xaxis: plot.axis(null, { range: [-1.05, 1.05], tickformat: "~g", zeroline: true, zerolinecolor: plot.colour("muted") }), yaxis: plot.axis(null, { tickformat: "", type: "category" }), margin: { l: 150, r: 16, t: 8, b: 40 }, showlegend: false }, `${study}-proxies`);
    }
    if (picked) {
      const [x, y, numbers] = [nas.unpack(picked.x), nas.unpack(picked.y), nas.unpack(picked.numbers)];
      await plot.draw(cloud, [{ type: "scatter", mode: "markers", x: [...x], y: [...y], customdata: [...numbers], marker: { size: x.length > 300 ? 5 : 8, color: plot.colour("accent"), opacity: 0.75 }, hovertemplate: "trial %{customdata}<extra></extra>" }],
        { xaxis: plot.axis(picked.metric, picked.metric.unit === "%" ? {} : plot.kind([x])), yaxis: plot.axis(view.target, view.target.unit === "%" ? {} : plot.kind([y])), margin: { l: 70, r: 16, t: 8, b: 60 }, showlegend: false }, `${study}-proxy`);
      if (cloud.on) cloud.on("plotly_click", (event) => nas.go("trial", { study, n: event.points[0].customdata }));
    }
  },
};
