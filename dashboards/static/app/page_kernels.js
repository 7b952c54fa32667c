"use strict";
// Results of the kernel benches: our time, the fastest other's, and the roofline of the card.
(() => {
  const { el, plot } = nas;
  const NARROW = 700; // pixels below which the names of cases stand above their rows

  const us = (value) => (Number.isFinite(value) ? value.toPrecision(4) : "");
  const percent = (r) => (r.roofline_us ? (100 * r.roofline_us) / r.ours_us : NaN);

  function table(name, rows) {
    const columns = [
      { title: "Case", value: (r) => r.case, wide: true },
      { title: "Ours (µs)", number: true, value: (r) => r.ours_us, text: (r) => us(r.ours_us) },
      {
        title: "p10 to p90",
        number: true,
        value: (r) => (Number.isFinite(r.p10_us) ? `${us(r.p10_us)} to ${us(r.p90_us)}` : ""),
      },
      { title: "Compared with", value: (r) => r.baseline, wide: true },
      {
        title: "Its time (µs)",
        number: true,
        value: (r) => r.baseline_us ?? NaN,
        text: (r) => us(r.baseline_us),
      },
      {
        title: "Speed-up",
        number: true,
        value: (r) => r.ratio ?? NaN,
        text: (r) => (Number.isFinite(r.ratio) ? `${r.ratio.toFixed(2)}×` : ""),
      },
      {
        title: "Roofline (µs)",
        number: true,
        value: (r) => r.roofline_us ?? NaN,
        text: (r) => us(r.roofline_us),
      },
      {
        title: "Of the roofline",
        number: true,
        value: percent,
        text: (r) => (Number.isFinite(percent(r)) ? `${percent(r).toFixed(0)} %` : ""),
      },
      {
        title: "Error",
        number: true,
        value: (r) => r.error ?? NaN,
        text: (r) => (Number.isFinite(r.error) ? r.error.toExponential(1) : ""),
      },
      { title: "Date", value: (r) => r.date },
      { title: "Commit", value: (r) => String(r.commit || "").slice(0, 9) },
    ];
    return nas.table(columns, rows, { name, label: "Kernel results" });
  }

  function draw(box, rows) {
    const narrow = box.clientWidth < NARROW;
    const y = rows.map((_, i) => -i);
    const names = rows.map((r) => plot.plain(String(r.case), narrow ? 46 : 60));
    const wins = (r) => r.ratio >= 1;
    // A bar from one time to the other, in the colour of who is faster.
    const link = (won) => ({
      type: "scatter",
      mode: "lines",
      hoverinfo: "skip",
      name: won ? "ours is faster" : "ours is slower",
      x: rows.flatMap((r) =>
        wins(r) === won && r.baseline_us ? [r.ours_us, r.baseline_us, null] : [],
      ),
      y: rows.flatMap((r, i) => (wins(r) === won && r.baseline_us ? [-i, -i, null] : [])),
      line: { width: 5, color: plot.colour(won ? "stairs" : "loss") },
    });
    const traces = [
      link(true),
      link(false),
      {
        type: "scatter",
        mode: "markers",
        name: "roofline",
        x: rows.map((r) => r.roofline_us),
        y,
        marker: { symbol: "line-ns", size: 15, line: { width: 2.5, color: plot.colour("ring") } },
        hovertemplate: "roofline %{x:.4~g} µs<extra></extra>",
      },
      {
        type: "scatter",
        mode: "markers",
        name: "compared with",
        x: rows.map((r) => r.baseline_us),
        y,
        text: rows.map((r) => plot.plain(String(r.baseline || ""))),
        marker: {
          symbol: "diamond-open",
          size: 10,
          color: plot.colour("muted"),
          line: { width: 2 },
        },
        hovertemplate: "%{text}<br>%{x:.4~g} µs<extra></extra>",
      },
      {
        type: "scatter",
        mode: "markers",
        name: "ours",
        x: rows.map((r) => r.ours_us),
        y,
        customdata: rows.map((r) => [us(r.p10_us), us(r.p90_us)]),
        marker: { size: 10, color: plot.colour("accent") },
        hovertemplate: "ours %{x:.4~g} µs (%{customdata[0]} to %{customdata[1]})<extra></extra>",
      },
    ];
    const word = (i, text, more) => ({
      text,
      y: -i,
      yref: "y",
      showarrow: false,
      font: { size: 12, color: plot.colour("muted") },
      ...more,
    });
    const ratios = rows.map((r, i) =>
      word(i, Number.isFinite(r.ratio) ? `${r.ratio.toFixed(2)}×` : "", {
        x: 1,
        xref: "paper",
        xanchor: "left",
        xshift: 8,
        font: { size: 12, color: plot.colour(wins(r) ? "ink" : "bad") },
      }),
    );
    const above = names.map((text, i) =>
      word(i, text, {
        x: 0,
        xref: "paper",
        xanchor: "left",
        yshift: 15,
        font: { size: 11, color: plot.colour("muted") },
      }),
    );
    return plot.draw(box, traces, {
      xaxis: plot.axis(null, {
        title: { text: "Time (µs)" },
        type: "log",
        tickformat: "~g",
        dtick: narrow ? 1 : "D2",
      }),
      yaxis: plot.axis(null, {
        range: [0.7 - rows.length, narrow ? 0.9 : 0.7],
        tickformat: "",
        showgrid: false,
        ticks: "",
        ...(narrow ? { showticklabels: false } : { tickvals: y, ticktext: names }),
      }),
      annotations: narrow ? [...above, ...ratios] : ratios,
      margin: { l: narrow ? 12 : 370, r: 56, t: 34, b: 48 },
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 12 } },
    });
  }

  nas.pages.kernels = {
    title: "Kernels",
    load: () => nas.get("kernels"),
    async make(main, query, { files, other }) {
      const groups = files.flatMap((file) => {
        const keys = [...new Set(file.records.map((r) => JSON.stringify([r.device, r.system])))];
        return keys.map((key) => {
          const [device, system] = JSON.parse(key);
          const rows = file.records.filter((r) => r.device === device && r.system === system);
          return {
            file: file.name,
            device: device || "device not recorded",
            system: system || "kernels",
            rows,
          };
        });
      });
      const narrow = document.documentElement.clientWidth < NARROW;
      const boxes = groups.map((group) => {
        const name = `kernels-${group.file}-${group.system}`;
        const height = 110 + (narrow ? 42 : 27) * group.rows.length;
        return plot.figure(
          name,
          `Times of ${group.system} on ${group.device}; the table gives them in numbers`,
          height,
        );
      });
      const cards = groups.map((group, i) =>
        nas.card(
          `${group.system.replace(/_/g, " ")} on ${group.device}`,
          boxes[i],
          nas.note(
            "Each row is a case: our time, that of what a user would take instead, and the " +
              "roofline, the least time in which the card can move the bytes or do the " +
              "arithmetic. At the right, how many times as fast ours is.",
          ),
          nas.fold(
            `${group.file}-${group.system}`,
            `All ${group.rows.length} results in numbers`,
            table(`kernels-${group.file}-${group.system}`, group.rows),
          ),
        ),
      );
      const none = nas.card(
        "No results yet",
        nas.note("This installation holds no recorded results of the kernel benches."),
      );
      main.replaceChildren(
        el("h1", {}, "Kernels"),
        el(
          "p",
          { class: "lead" },
          "What nas bench measured, by card; the results ship with the package.",
        ),
        ...(cards.length ? cards : [none]),
        other.length ? nas.note(`Files of another form: ${other.join(", ")}.`) : "",
      );
      for (const [i, group] of groups.entries()) await draw(boxes[i], group.rows);
    },
  };
})();
