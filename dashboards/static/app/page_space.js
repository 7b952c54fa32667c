"use strict";
// The space: how large it is, what is decided in it, and what each decision did.
(() => {
  const { el, plot } = nas;
  const DRAWN = 15; // decisions in the chart
  const POLL = 1500; // ms, while the size is being found

  function about(view) {
    const { described } = view;
    const options = view.decisions.reduce((sum, d) => sum + d.options.length, 0);
    const size =
      described.size || (described.counting ? "is being found" : described.error || "not known");
    const version = /version (\d+)$/.exec(view.recorded)?.[1];
    const other =
      described.version !== undefined && version && String(described.version) !== version;
    const facts = [
      ["Candidates", size],
      ["Decisions", `${nas.count(view.decisions.length)} with ${nas.count(options)} options`],
      ["Recorded as", view.recorded],
      ["Studied here", `${nas.count(view.count)} evaluated in full`],
    ];
    return nas.card(
      "Size",
      el(
        "dl",
        { class: "facts" },
        facts
          .filter(([, value]) => value)
          .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
      ),
      other
        ? el(
            "p",
            { class: "reason" },
            `The size is of version ${described.version}, which is installed; ` +
              `the study was made with version ${version}.`,
          )
        : "",
    );
  }

  function drawImportance(box, top, picked, opened) {
    return plot.draw(
      box,
      [
        {
          type: "bar",
          orientation: "h",
          x: top.map((d) => d.share),
          y: top.map((d) => plot.plain(d.decision, 30)),
          customdata: top.map((d) => d.decision),
          marker: { color: top.map((d) => plot.colour(d === picked ? "ring" : "accent")) },
          hovertemplate: "%{y}: %{x:.0%}<extra></extra>",
        },
      ],
      {
        xaxis: plot.axis(null, {
          title: { text: "Share of the variance explained" },
          tickformat: ".0%",
          rangemode: "tozero",
        }),
        yaxis: plot.axis(null, { type: "category", tickformat: "" }),
        margin: { l: 140, r: 16, t: 8, b: 48 },
        bargap: 0.35,
        showlegend: false,
      },
      opened,
    );
  }

  function drawOptions(box, picked, metric) {
    const known = picked.options.filter((o) => o.count);
    const ends = (o) => [o.mean - (o.error || 0), o.mean + (o.error || 0)];
    return plot.draw(
      box,
      [
        {
          type: "scatter",
          mode: "markers+text",
          x: known.map((o) => plot.plain(o.option, 20)),
          y: known.map((o) => o.mean),
          text: known.map((o) => `   n ${nas.count(o.count)}`),
          textposition: "middle right",
          textfont: { size: 11, color: plot.colour("muted") },
          cliponaxis: false,
          marker: { size: 11, color: plot.colour("accent") },
          error_y: {
            type: "data",
            array: known.map((o) => o.error || 0),
            color: plot.colour("bar"),
            thickness: 1.5,
            width: 4,
          },
          hovertemplate: "%{x}: %{y:.4~g}<extra></extra>",
        },
      ],
      {
        xaxis: plot.axis(null, {
          title: { text: plot.plain(picked.decision) },
          type: "category",
          tickformat: "",
        }),
        yaxis: plot.axis(metric, plot.range([known.flatMap(ends)])),
        margin: { l: 74, r: 40, t: 16, b: 52 },
        showlegend: false,
        uirevision: picked.decision,
      },
    );
  }

  function table(view, picked, choose) {
    const words = (o) => `${o.option} (${nas.count(o.count)})`;
    const columns = [
      {
        title: "Decision",
        value: (d) => d.decision,
        node: (d) =>
          el(
            "button",
            { type: "button", class: "link", onclick: () => choose(d.decision) },
            el("code", {}, d.decision),
          ),
      },
      {
        title: "Explains",
        note: "of the variance",
        number: true,
        value: (d) => d.share ?? NaN,
        text: (d) => (d.share === null ? "too few" : `${(100 * d.share).toFixed(0)} %`),
      },
      {
        title: "Options",
        note: "and how many candidates have each",
        value: (d) => d.options.map(words).join(", "),
        wide: true,
      },
    ];
    const mark = (d) => (d === picked ? "picked" : "");
    return nas.table(columns, view.decisions, {
      name: `${view.study}-space`,
      label: "Decisions",
      mark,
    });
  }

  function rejections(view) {
    if (!view.rejections.length) return nas.note("No draw broke a rule of the space.");
    const columns = [
      { title: "Rule", value: (r) => r.rule, wide: true },
      {
        title: "Draws rejected",
        number: true,
        value: (r) => r.count,
        text: (r) => nas.count(r.count),
      },
    ];
    return nas.table(columns, view.rejections, {
      name: `${view.study}-rules`,
      label: "Rules and draws they rejected",
    });
  }

  nas.pages.space = {
    title: "Space",
    study: true,
    load: (query) =>
      nas.get("space", { study: query.get("study"), metric: query.get("metric") || "" }),
    async make(main, query, view) {
      const study = query.get("study");
      const picked = view.decisions.find((d) => d.decision === query.get("d")) || view.decisions[0];
      const top = view.decisions
        .filter((d) => d.share !== null)
        .slice(0, DRAWN)
        .reverse();
      const choose = (name) => {
        nas.keep({ d: name });
        nas.show();
      };
      const measure = view.objectives.map((m) => [m.name, m.label]);
      const height = Math.max(220, 90 + 26 * top.length);
      const chart = plot.figure(
        `${study}-importance`,
        "Importance of decisions; the table gives it in numbers",
        height,
      );
      const options = plot.figure(`${study}-options`, "Options of the chosen decision", 340);
      const some = picked && picked.options.some((o) => o.count);
      main.replaceChildren(
        el("h1", {}, "Space ", el("small", {}, view.space)),
        el("div", { class: "pair" }, about(view), nas.card("Rules", rejections(view))),
        el(
          "div",
          { class: "controls" },
          nas.select("What decisions did to", measure, view.metric.name, (name) => {
            nas.keep({ metric: name });
            nas.show();
          }),
        ),
        el(
          "div",
          { class: "pair" },
          nas.card(
            "Importance",
            top.length
              ? chart
              : nas.note(`Two options of a decision need ${view.fewest} candidates each.`),
            nas.note(
              "Share of the figure's variance between the options of one decision alone (epsilon " +
                "squared). A search does not draw at random: decisions that went together share " +
                "their credit, and few candidates make it uncertain. Options with fewer than " +
                `${view.fewest} candidates are left out.`,
            ),
          ),
          nas.card(
            picked ? picked.decision : "Options",
            some ? options : nas.note("No candidate is complete yet."),
            nas.note(
              "Mean of the candidates with each option, bars one standard error either way; " +
                `none below ${view.fewest} candidates.`,
            ),
          ),
        ),
        nas.card(
          "All decisions",
          view.decisions.length
            ? table(view, picked, choose)
            : nas.note("No decision was met yet."),
        ),
      );
      if (top.length) await drawImportance(chart, top, picked, choose);
      if (some) await drawOptions(options, picked, view.metric);
      if (view.described.counting)
        setTimeout(() => nas.place().page === "space" && nas.renew(), POLL);
    },
  };
})();
