"use strict";
nas.pages.kernels = {
  title: "Kernels",
  async make(main) {
    const { el, plot } = nas;
    const { files, other } = await nas.get("kernels");
    const cards = [];
    const drawn = [];
    for (const file of files) {
      for (const device of [...new Set(file.records.map((r) => r.device))]) {
        const rows = file.records.filter((r) => r.device === device);
        const div = plot.figure(`Speed against the fastest baseline on ${device}; the table gives it in numbers`, 90 + 30 * rows.length);
        const us = (v) => (Number.isFinite(v) ? v.toPrecision(4) : "");
        cards.push(nas.card(`${file.name}: ${device || "device not recorded"}`, div,
          el("p", { class: "note" }, "Bars: how many times as fast as the fastest baseline; 1 is equal. The mark is the floor: the speed at which the same bytes are merely copied."),
          nas.table([{ title: "Case", value: (r) => r.case, wide: true }, { title: "Ours", note: "\u00b5s", number: true, value: (r) => r.ours_us, text: (r) => us(r.ours_us) }, { title: "p10", number: true, value: (r) => r.p10_us, text: (r) => us(r.p10_us) }, { title: "p90", number: true, value: (r) => r.p90_us, text: (r) => us(r.p90_us) },
            { title: "Baseline", value: (r) => r.baseline }, { title: "Its time", note: "\u00b5s", number: true, value: (r) => r.baseline_us, text: (r) => us(r.baseline_us) }, { title: "Ratio", number: true, value: (r) => r.ratio, text: (r) => (Number.isFinite(r.ratio) ? r.ratio.toFixed(2) : "") },
            { title: "Floor", note: "\u00b5s", number: true, value: (r) => r.roofline_us, text: (r) => us(r.roofline_us) }, { title: "Date", value: (r) => r.date }, { title: "Commit", value: (r) => String(r.commit || "").slice(0, 9) }], rows, { name: `kernels-${file.name}`, label: "Kernel results" })));
        drawn.push([div, rows]);
      }
    }
    main.replaceChildren(el("h1", {}, "Kernels"), ...(cards.length ? cards : [nas.card("No results yet", el("p", { class: "note" }, "This installation holds no recorded results of the kernel benches."))]),
      other.length ? el("p", { class: "note" }, `Files of another form: ${other.join(", ")}.`) : "");
    for (const [div, rows] of drawn) {
      const order = [...rows].reverse();
      const label = order.map((r, i) => `${plot.plain(String(r.case), 44)}${"\u200b".repeat(i)}`); // equal cases stay apart
      await plot.draw(div, [{ type: "bar", orientation: "h", name: "ratio", x: order.map((r) => r.ratio), y: label, marker: { color: order.map((r) => plot.colour(r.ratio >= 1 ? "accent" : "dim")) }, hovertemplate: "%{x:.2f} times as fast<extra></extra>" },
        { type: "scatter", mode: "markers", name: "floor", x: order.map((r) => (r.roofline_us ? r.baseline_us / r.roofline_us : null)), y: label, marker: { symbol: "line-ns", size: 16, line: { width: 2.5, color: plot.colour("ring") } }, hovertemplate: "floor: %{x:.2f}<extra></extra>" }],
      { xaxis: plot.axis(null, { tickformat: "~g", rangemode: "tozero" }), yaxis: plot.axis(null, { type: "category", tickformat: "" }), bargap: 0.35, margin: { l: 300, r: 16, t: 30, b: 40 },
        shapes: [{ type: "line", x0: 1, x1: 1, yref: "paper", y0: 0, y1: 1, line: { color: plot.colour("muted"), width: 1.5 } }] }, "kernels");
    }
  },
};
