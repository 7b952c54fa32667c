"use strict";
(() => {
  const { el, svg, plot } = nas;
  const shape = (sizes) => sizes.join("\u00d7");
  const compact = (value) => (value >= 1e6 ? `${(value / 1e6).toPrecision(3)} M` : value >= 1e4 ? `${(value / 1e3).toPrecision(3)} k` : value.toLocaleString("en-US"));
  const classOf = (layer) => (layer.gain !== null ? "weighted" : layer.inputs.length > 1 ? "join" : "light");

  function graph(view, picked) {
    const [dx, dy, w, h, pad] = [206, 52, 190, 34, 12];
    const { nodes, edges, width, height } = view.drawing;
    const [wide, high] = [width * dx - (dx - w) + 2 * pad, height * dy - (dy - h) + 2 * pad];
    const centre = ([column, layer]) => [pad + column * dx + w / 2, pad + layer * dy + h / 2];
    const drawing = svg("svg", { width: wide, height: high, viewBox: `0 0 ${wide} ${high}`, class: "graph", role: "group", "aria-label": "Graph of the network; the table of layers gives the same" });
    for (const corners of edges) {
      const points = corners.map(centre);
      let path = `M ${points[0][0]} ${points[0][1] + h / 2}`;
      for (let i = 1; i < points.length; i += 1) {
        const [x0, y0] = [points[i - 1][0], points[i - 1][1] + h / 2];
        const [x1, y1] = [points[i][0], points[i][1] - h / 2];
        if (i > 1) path += ` L ${x0} ${y0}`;
        path += ` C ${x0} ${y0 + 9}, ${x1} ${y1 - 9}, ${x1} ${y1}`;
      }
      drawing.append(svg("path", { d: path, class: "edge" }));
    }
    nodes.forEach((place, number) => {
      const layer = view.layers[number];
      const [x, y] = centre(place);
      const text = svg("text", { x, y: y - 1, "text-anchor": "middle" });
      text.textContent = layer.op.length > 26 ? `${layer.op.slice(0, 25)}\u2026` : layer.op;
      const size = svg("text", { x, y: y + 12, "text-anchor": "middle", class: "size" });
      size.textContent = shape(layer.shape) + (layer.variant ? ` \u00b7 ${layer.variant}` : "");
      const title = svg("title");
      title.textContent = `${number}: ${layer.op}${layer.scope ? ` (${layer.scope})` : ""}`;
      const group = svg("g", { class: `node ${classOf(layer)}${layer.variant ? " varied" : ""}`, "data-node": number, onclick: () => picked(number) },
        title, svg("rect", { x: x - w / 2, y: y - h / 2, width: w, height: h, rx: 6 }), text, size);
      drawing.append(group);
    });
    return drawing;
  }

  function layers(view) {
    const known = view.layers;
    const columns = [
      { title: "Layer", number: true, value: (l) => l.number },
      { title: "Operator", value: (l) => l.op, node: (l) => el("code", {}, l.op) },
      { title: "Reads", value: (l) => l.inputs.join(", ") },
      { title: "Shape", value: (l) => shape(l.shape) },
      { title: "Parameters", number: true, value: (l) => l.params, text: (l) => (l.tie === null ? l.params.toLocaleString("en-US") : `shared with ${l.tie}`) },
      { title: "MACs", number: true, value: (l) => l.macs, text: (l) => l.macs.toLocaleString("en-US") },
      { title: "3DRF gain", note: "nats", number: true, value: (l) => l.gain, text: (l) => (l.gain === null ? "" : l.gain.toFixed(2)) },
      ...(known.some((l) => l.variant) ? [{ title: "Variant", value: (l) => l.variant }] : []),
      { title: "Name", value: (l) => l.scope, wide: true },
    ];
    return nas.table(columns, known, { name: `trial-${view.number}-layers`, label: "Layers", most: 400 });
  }

  function evidence(figure) {
    const { detail } = figure;
    if (!Object.keys(detail).length) return figure.evaluator ? `${figure.evaluator}, ${nas.moment(figure.measured)}` : "";
    const repeats = Array.isArray(detail.repeats) ? `${detail.repeats.length} repeats` : "";
    const samples = Array.isArray(detail.samples_us) ? `${detail.samples_us.length} samples in ${new Set(detail.round_index).size} rounds` : "";
    const clock = detail.clocks || detail.clock_mhz || detail.sm_clock_mhz;
    return [detail.device, samples, repeats, detail.cache && `${detail.cache} cache`, detail.mode, detail.queue && `queue ${detail.queue}`,
      detail.threads && `${detail.threads} thread${detail.threads > 1 ? "s" : ""}`, detail.dtype, detail.recipe && `recipe ${detail.recipe}`,
      detail.total && `${detail.correct ?? "?"} of ${detail.total} images right`, detail.seed !== undefined && `seed ${detail.seed}`, clock && `clocks ${JSON.stringify(clock)}`,
      detail.warmup_converged === false && "warm-up was not stable", detail.shortened && "fewer samples than asked for", detail.disturbed && "disturbed",
      detail.driver && `driver ${detail.driver}`, detail.torch && `torch ${detail.torch}`,
      figure.measured && `${figure.reused ? "taken from another trial, " : ""}${nas.moment(figure.measured)}`, figure.seconds ? `took ${nas.duration(figure.seconds)}` : ""]
      .filter(Boolean).join(" \u00b7 ");
  }
  function figures(view) {
    const columns = [
      { title: "Figure", value: (f) => f.metric.label, node: (f) => el("b", {}, f.metric.label) },
      { title: "Value", number: true, value: (f) => f.value, text: (f) => nas.shown(f.metric, f.value) },
      { title: "Spread", value: (f) => nas.ends(f.metric, f.low, f.high),
        node: (f) => { const ends = nas.ends(f.metric, f.low, f.high); return el("span", {}, ends || "exact", ends && f.metric.spread ? el("small", {}, f.metric.spread) : ""); } },
      { title: "How it came about", wide: true, value: evidence, node: (f) => el("span", { class: "evidence" }, evidence(f)) },
    ];
    return nas.table(columns, view.figures, { name: `trial-${view.number}-figures`, label: "Figures and where they were measured" });
  }

  async function curves(holder, view) {
    const later = []; // all cards stand before any figure is fitted to its own
    for (const figure of view.figures) {
      const runs = Array.isArray(figure.detail.repeats) ? figure.detail.repeats : [figure.detail];
      const trained = runs.filter((run) => Array.isArray(run.history) && run.history.length);
      const timed = runs.filter((run) => Array.isArray(run.samples_us));
      if (trained.length) {
        const div = plot.figure(`Training curve of ${figure.metric.label}`, 300);
        holder.append(nas.card(`Training: ${figure.metric.label}`, div));
        const colours = plot.series();
        later.push(() => plot.draw(div, trained.flatMap((run, i) => [
          { type: "scatter", mode: "lines", name: trained.length > 1 ? `seed ${run.seed}` : "validation accuracy", x: run.history.map((e) => e.epoch), y: run.history.map((e) => e.validation), line: { color: colours[i % 4], width: 2 } },
          { type: "scatter", mode: "lines", name: "training loss", showlegend: i === 0, x: run.history.map((e) => e.epoch), y: run.history.map((e) => e.train_loss), yaxis: "y2", line: { color: plot.colour("muted"), width: 1.5, dash: "dot" } }]),
        { xaxis: plot.axis(null, { title: { text: "Epoch" }, tickformat: "d" }), yaxis: plot.axis(null, { title: { text: "Accuracy" }, tickformat: "~%" }),
          yaxis2: plot.axis(null, { title: { text: "Loss" }, overlaying: "y", side: "right", showgrid: false, tickmode: "auto", rangemode: "tozero", tickformat: "~g" }), margin: { l: 60, r: 60, t: 30, b: 48 } }, `trial-${view.number}-training`));
      }
      if (timed.length) {
        const run = timed[0];
        const div = plot.figure(`Samples of ${figure.metric.label}`, 300);
        const drift = typeof run.drift === "number" ? ` Drift from the first to the last round ${(100 * run.drift).toFixed(1)} %.` : "";
        holder.append(nas.card(`Samples: ${figure.metric.label}`, div, el("p", { class: "note" }, `One dot is the mean of ${run.inner_repeats} call${run.inner_repeats > 1 ? "s" : ""}; lines at the median and the 10th and 90th percentile.${drift}`)));
        const rounds = [...new Set(run.round_index)];
        const level = (value, dash) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line: { color: plot.colour("muted"), width: 1, dash } });
        later.push(() => plot.draw(div, rounds.map((round, i) => { const at = run.samples_us.map((_, k) => k).filter((k) => run.round_index[k] === round);
          return { type: "scatter", mode: "markers", name: `round ${round + 1}`, x: at.map((k) => k + 1), y: at.map((k) => run.samples_us[k] / 1e3), marker: { size: 7, color: plot.series()[i % 4], symbol: ["circle", "diamond", "square", "triangle-up"][i % 4] } }; }),
        { xaxis: plot.axis(null, { title: { text: "Sample, in the order taken" }, tickformat: "d" }), yaxis: plot.axis(null, { title: { text: "ms" }, tickformat: "~g" }),
          shapes: [level(figure.value, "solid"), ...(figure.low === null ? [] : [level(figure.low, "dot"), level(figure.high, "dot")])], margin: { l: 60, r: 16, t: 30, b: 48 } }, `trial-${view.number}-samples`));
      }
    }
    for (const drawn of later) await drawn();
  }

  function lineage(view) {
    const to = (n) => el("a", { href: nas.link("trial", { study: view.study, n }) }, `trial ${n}`);
    const { origin } = view;
    const by = [origin.by, origin.kind].filter((w) => typeof w === "string").join(", ");
    const list = [el("p", {}, "Proposed by ", el("b", {}, by || "unknown"), ...(typeof origin.parent === "number" ? [" from ", to(origin.parent)] : []),
      ...(typeof origin.other === "number" ? [" and ", to(origin.other)] : []), ".")];
    if (view.changes.length) {
      list.push(nas.table([{ title: "Decision", value: (c) => c.decision, node: (c) => el("code", {}, c.decision) },
        { title: "Parent", value: (c) => String(c.before ?? "not asked") }, { title: "Here", value: (c) => String(c.after ?? "not asked") }], view.changes, { name: `trial-${view.number}-changes`, label: "What was decided otherwise than for the parent" }));
    }
    if (view.children.length) list.push(el("p", {}, "Parent of ", ...view.children.flatMap((n, i) => [i ? ", " : "", to(n)]), "."));
    if (typeof origin.parent === "number") list.push(el("p", {}, el("a", { href: nas.link("compare", { study: view.study, t: `${origin.parent},${view.number}` }) }, "Compare with its parent")));
    return nas.card("Where it comes from", ...list);
  }

  nas.pages.trial = {
    title: "Architecture", study: true, hidden: true,
    async make(main, query) {
      const view = await nas.get("trial", { study: query.get("study"), number: query.get("n") });
      const holder = el("div", { class: "pair" });
      const table = layers(view);
      const picked = (number) => {
        for (const other of main.querySelectorAll(".node.picked, tr.picked")) other.classList.remove("picked");
        main.querySelector(`.node[data-node="${number}"]`)?.classList.add("picked");
        const row = [...table.querySelectorAll("tbody tr")].find((r) => Number(r.cells[0].textContent) === number);
        row?.classList.add("picked");
        row?.scrollIntoView({ block: "nearest" });
      };
      table.addEventListener("click", (event) => { const row = event.target.closest("tbody tr"); if (row) picked(Number(row.cells[0].textContent)); });
      const audits = view.artifacts.length ? el("p", {}, `Files it made: ${view.artifacts.map((a) => `${a.name} (${a.kind}, ${nas.number(null, a.size)} B)`).join(", ")}.`) : "";
      const save = async () => nas.save(`${view.key}.json`, "application/json", JSON.stringify(await nas.get("architecture", { key: view.key }), null, 1));
      main.replaceChildren(
        el("h1", {}, `Trial ${view.number} `, el("small", {}, view.key.slice(0, 8))),
        el("p", { class: "count" }, el("span", { class: `chip ${view.state}` }, view.state), view.baseline ? el("span", { class: "chip" }, "baseline") : "",
          view.stage ? el("span", { class: "chip" }, `at ${view.stage}`) : "", el("span", {}, `${view.layers.length} layers, `, el("b", {}, compact(view.params)), " parameters, ", el("b", {}, compact(view.macs)), " MACs")),
        view.reason ? el("p", { class: "reason" }, view.reason) : "",
        el("p", { class: "actions" }, nas.embedded ? "" : el("button", { type: "button", onclick: save }, "Save as JSON"),
          el("button", { type: "button", onclick: () => navigator.clipboard.writeText(view.text).then(() => nas.say("The text is copied.")) }, "Copy the text"),
          el("a", { href: nas.link("front", { study: view.study }) }, "To the front")),
        nas.card("Figures", figures(view), audits),
        el("div", { class: "anatomy" }, el("section", { class: "card" }, el("h2", {}, "Graph"), el("div", { class: "scroll graph-holder", tabindex: "0", role: "region", "aria-label": "Graph of the network" }, graph(view, picked))),
          nas.card("Layers", table)),
        holder, lineage(view), nas.card("Text", el("p", { class: "note" }, "The network in one line; it parses back to the same network."), el("code", { class: "block" }, view.text)));
      await curves(holder, view);
    },
  };
})();
