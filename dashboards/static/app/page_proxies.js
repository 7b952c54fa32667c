"use strict";
// How well each cheap figure ranks what was trained.
(() => {
  const { el, plot } = nas;

  function drawRanks(box, known, opened) {
    const rows = [...known].reverse();
    const value = (r) => r.correlation.value;
    return plot.draw(
      box,
      [
        {
          type: "scatter",
          mode: "markers",
          x: rows.map(value),
          y: rows.map((r) => plot.plain(r.metric.label, 28)),
          customdata: rows.map((r) => r.metric.name),
          marker: { size: 11, color: plot.colour("accent") },
          error_x: {
            type: "data",
            symmetric: false,
            array: rows.map((r) => r.correlation.high - value(r)),
            arrayminus: rows.map((r) => value(r) - r.correlation.low),
            color: plot.colour("bar"),
            thickness: 1.5,
            width: 4,
          },
          hovertemplate: "%{y}: %{x:.2f}<extra></extra>",
        },
      ],
      {
        xaxis: plot.axis(null, {
          title: { text: "Rank correlation (Spearman)" },
          range: [-1.05, 1.05],
          tickformat: "~g",
          zeroline: true,
          zerolinecolor: plot.colour("muted"),
        }),
        yaxis: plot.axis(null, { tickformat: "", type: "category" }),
        margin: { l: 130, r: 16, t: 8, b: 48 },
        showlegend: false,
      },
      opened,
    );
  }

  function drawCloud(box, picked, target, opened) {
    const [x, y, numbers] = [picked.x, picked.y, picked.numbers].map(nas.unpack);
    const axis = (metric, values) => {
      const kind = plot.kind(metric, [values]);
      return plot.axis(metric, { ...kind, ...plot.range([values], kind.type) });
    };
    return plot.draw(
      box,
      [
        {
          type: "scatter",
          mode: "markers",
          x: [...x],
          y: [...y],
          customdata: [...numbers],
          marker: {
            size: x.length > 300 ? 5 : 8,
            color: plot.colour("accent"),
            opacity: x.length > 300 ? 0.4 : 0.75,
          },
          hovertemplate: "trial %{customdata}<extra></extra>",
        },
      ],
      {
        xaxis: axis(picked.metric, x),
        yaxis: axis(target, y),
        margin: { l: 70, r: 16, t: 8, b: 60 },
        showlegend: false,
        uirevision: picked.metric.name,
      },
      opened,
    );
  }

  nas.pages.proxies = {
    title: "Proxies",
    study: true,
    load: (query) => nas.get("proxies", { study: query.get("study") }),
    async make(main, query, view) {
      const study = query.get("study");
      const target = view.target.label.toLowerCase();
      const known = view.rows.filter((row) => row.correlation);
      const picked = view.rows.find((row) => row.metric.name === query.get("p")) || view.rows[0];
      const some = picked && picked.count > 0;
      const choose = (name) => {
        nas.keep({ p: name });
        nas.show();
      };
      const height = Math.max(200, 90 + 34 * known.length);
      const chart = plot.figure(
        `${study}-proxies`,
        "Rank correlations; the table gives them in numbers",
        height,
      );
      const cloud = plot.figure(`${study}-proxy`, "The chosen figure against the target", 340);
      const columns = [
        {
          title: "Figure",
          value: (r) => r.metric.label,
          node: (r) =>
            el(
              "button",
              { type: "button", class: "link", onclick: () => choose(r.metric.name) },
              r.metric.label,
            ),
        },
        {
          title: "Rank correlation",
          number: true,
          value: (r) => r.correlation?.value ?? NaN,
          text: (r) => (r.correlation ? r.correlation.value.toFixed(2) : "too few, or all equal"),
        },
        {
          title: "95 % interval",
          number: true,
          value: (r) =>
            r.correlation
              ? `${r.correlation.low.toFixed(2)} to ${r.correlation.high.toFixed(2)}`
              : "",
        },
        {
          title: "Kendall's tau-b",
          number: true,
          value: (r) => r.tau ?? NaN,
          text: (r) => (r.correlation ? r.tau.toFixed(2) : ""),
        },
        {
          title: "Candidates",
          number: true,
          value: (r) => r.count,
          text: (r) => nas.count(r.count),
        },
      ];
      const mark = (row) => (row === picked ? "picked" : "");
      main.replaceChildren(
        el("h1", {}, "Proxies ", el("small", {}, study)),
        el(
          "p",
          { class: "lead" },
          `How well each figure ranks what was evaluated in full, judged by ${target} ` +
            `(${view.target.wish}).`,
        ),
        ...view.off.map((text) => el("p", { class: "reason" }, text)),
        el(
          "div",
          { class: "pair" },
          nas.card(
            "Rank correlation",
            known.length ? chart : nas.note(`From ${view.fewest} candidates on.`),
            nas.note(
              "Spearman's, with a 95 % interval (Bonett and Wright). A gate by a proxy whose " +
                "tau-b is below that of the parameters is switched off. Only candidates that " +
                "came through the funnel are counted, so a proxy that already dropped the poor " +
                "ones looks weaker than it is.",
            ),
          ),
          nas.card(
            picked ? `${picked.metric.label} and ${target}` : "",
            some ? cloud : nas.note("No candidate has both figures yet."),
          ),
        ),
        nas.card(
          "In numbers",
          nas.table(columns, view.rows, {
            name: `${study}-proxies`,
            label: "Rank correlations",
            mark,
          }),
        ),
      );
      if (known.length) await drawRanks(chart, known, choose);
      if (some) await drawCloud(cloud, picked, view.target, (n) => nas.go("trial", { study, n }));
    },
  };
})();
