"use strict";
// The front: any metric on any axis, bounds by sliders or brushes, replay, several studies.
(() => {
  const { el, plot } = nas;
  const DRAWN = 1500; // dominated candidates drawn; all are counted
  const OUTSIDE = 400;

  class Study {
    constructor(view) {
      this.view = view;
      this.name = view.study;
      this.count = view.count;
      this.numbers = nas.unpack(view.numbers);
      this.metrics = new Map(view.metrics.map((metric) => [metric.name, metric]));
      this.columns = new Map(Object.entries(view.columns).map(([name, data]) => [name, nas.unpack(data)]));
      this.spreads = new Map(Object.entries(view.spreads.columns).map(
        ([name, { low, high }]) => [name, [nas.unpack(low), nas.unpack(high)]]));
      this.spreadAt = new Map([...nas.unpack(view.spreads.rows)].map((row, at) => [row, at]));
    }
    column(name) { return this.columns.get(name) || new Float64Array(this.count).fill(NaN); }
    value(name, row) { return this.column(name)[row]; }
    spread(name, row) {
      const found = this.spreads.get(name);
      const at = this.spreadAt.get(row);
      return found && at !== undefined ? [found[0][at], found[1][at]] : [NaN, NaN];
    }
    objectives() { return this.view.objectives.map((name) => this.metrics.get(name)); }
  }

  const page = { studies: [], failed: "" };

  async function load(query, view = query.getAll("m")) {
    const names = [query.get("study"), ...query.getAll("with")];
    const wanted = [...new Set([query.get("x"), query.get("y"), query.get("c"), query.get("z"), ...view].filter(Boolean))];
    page.studies = [];
    for (const name of names) page.studies.push(new Study(await nas.get("front",
      nas.embedded ? { study: name } : { study: name, metric: wanted })));
  }

  function defaults(study, query) {
    const goals = study.objectives();
    const x = goals.find((m) => m.direction === "min") || goals[0];
    const y = goals.find((m) => m.direction === "max" && m !== x) || goals.find((m) => m !== x) || x;
    const third = goals.find((m) => m !== x && m !== y);
    const pick = (name, other) => (study.metrics.has(query.get(name)) ? query.get(name) : other);
    return {
      view: query.get("view") || "2d", x: pick("x", x.name), y: pick("y", y.name),
      c: query.get("c") === "-" ? "" : pick("c", third && page.studies.length < 2 ? third.name : ""),
      z: pick("z", (third || y).name),
    };
  }

  // What the sliders and the replay leave of a study, and which of that is its front.
  function standing(study, bounds, until) {
    const tests = [...bounds].filter(([name]) => study.columns.has(name))
      .map(([name, [low, high]]) => [study.column(name), low, high]);
    const rows = nas.pareto.kept(study.count, tests, until === null ? null : (row) => study.numbers[row] <= until);
    const goals = study.objectives();
    const front = nas.pareto.front(rows, goals.map((m) => study.column(m.name)), goals.map((m) => (m.direction === "min" ? 1 : -1)));
    const isFront = new Set(front);
    return { rows, front, dim: rows.filter((row) => !isFront.has(row)), kept: new Set(rows) };
  }

  function hover(study, row, names, standing) {
    const lines = [`<b>trial ${study.numbers[row]}</b>, ${standing}`];
    for (const name of names) {
      const metric = study.metrics.get(name);
      const value = study.value(name, row);
      if (!metric || !Number.isFinite(value)) continue;
      const ends = nas.ends(metric, ...study.spread(name, row));
      lines.push(`${plot.plain(metric.label)}: <b>${plot.plain(nas.shown(metric, value))}</b>`
        + (ends ? ` (${plot.plain(ends)}${metric.spread ? `, ${plot.plain(metric.spread)}` : ""})` : ""));
    }
    if (page.studies.length > 1) lines.push(plot.plain(study.name));
    return lines.join("<br>");
  }

  function bars(study, rows, name, colour) {
    if (!study.spreads.has(name)) return { visible: false };
    const away = rows.map((row) => {
      const value = study.value(name, row);
      const [low, high] = study.spread(name, row);
      return [Number.isFinite(low) ? Math.max(0, value - low) : 0, Number.isFinite(high) ? Math.max(0, high - value) : 0];
    });
    return { type: "data", symmetric: false, arrayminus: away.map((a) => a[0]), array: away.map((a) => a[1]), color: colour, thickness: 1.1, width: 0 };
  }

  function stairs(study, rows, x, y) {
    const [a, b] = [study.metrics.get(x), study.metrics.get(y)];
    const best = nas.pareto.front(rows, [study.column(x), study.column(y)],
      [a, b].map((m) => (m.direction === "min" ? 1 : -1)));
    return best.sort((p, q) => study.value(x, p) - study.value(x, q));
  }

  function traces2d(set, stands) {
    const names = (study) => [...new Set([...study.view.objectives, set.x, set.y, ...(set.c ? [set.c] : [])])];
    const colours = plot.series();
    const many = page.studies.length > 1;
    const out = [];
    page.studies.forEach((study, index) => {
      const { dim, front, kept } = stands[index];
      const outside = nas.pareto.sample(Array.from({ length: study.count }, (_, i) => i).filter((row) => !kept.has(row)), OUTSIDE);
      const drawn = nas.pareto.sample(dim, DRAWN);
      const label = (text) => (many ? `${plot.plain(study.name, 24)}: ${text}` : text);
      const points = (rows, standing, look) => ({
        type: "scatter", mode: "markers", x: rows.map((r) => study.value(set.x, r)), y: rows.map((r) => study.value(set.y, r)),
        customdata: rows.map((r) => [index, study.numbers[r]]), hoverinfo: "text",
        hovertext: rows.map((r) => hover(study, r, names(study), standing)), ...look,
      });
      if (outside.length) out.push(points(outside, "outside the bounds", { name: label("outside the bounds"), showlegend: !many,
        marker: { size: 4.5, color: plot.colour("dim"), opacity: 0.28 } }));
      const sparse = drawn.length < 120;
      out.push(points(drawn, "dominated", { name: label("dominated"), showlegend: !many,
        marker: { size: sparse ? 7 : 4.5, color: many ? colours[index] : plot.colour("dim"), opacity: many ? 0.25 : sparse ? 1 : 0.6 },
        error_x: sparse && !many ? bars(study, drawn, set.x, plot.colour("dim-bar")) : { visible: false },
        error_y: sparse && !many ? bars(study, drawn, set.y, plot.colour("dim-bar")) : { visible: false } }));
      const steps = stairs(study, front, set.x, set.y);
      out.push({ type: "scatter", mode: "lines", x: steps.map((r) => study.value(set.x, r)), y: steps.map((r) => study.value(set.y, r)),
        line: { shape: study.metrics.get(set.x).direction === "min" ? "hv" : "vh", width: 2, color: many ? colours[index] : plot.colour("stairs") },
        opacity: many ? 0.5 : 1, hoverinfo: "skip", showlegend: !many && steps.length > 1 && study.view.objectives.length > 2, name: "best of these two alone" });
      const marker = { size: 12, color: colours[index % colours.length], symbol: ["circle", "diamond", "square", "triangle-up"][index % 4],
        line: { width: 1.2, color: plot.colour("surface") } };
      if (set.c && !many) {
        const third = study.metrics.get(set.c);
        const column = study.column(set.c);
        const log = plot.kind([front.map((r) => column[r])]).type === "log";
        const place = (v) => (log ? Math.log10(v) : v);
        const values = front.map((r) => place(column[r]));
        const [low, high] = [Math.min(...values), Math.max(...values)];
        const ticks = front.length ? [0, 0.25, 0.5, 0.75, 1].map((s) => low + s * (high - low)) : [];
        Object.assign(marker, { color: values, colorscale: plot.scale(), cmin: low, cmax: high === low ? low + 1 : high, colorbar: {
          title: { text: `${plot.plain(third.title)}, ${third.wish}`, side: "right", font: { size: 12 } }, thickness: 10, outlinewidth: 0, x: 1.01,
          tickvals: ticks, ticktext: ticks.map((t) => nas.number(third, log ? 10 ** t : t)), tickfont: { size: 11, color: plot.colour("muted") } } });
        out.push({ type: "scatter", mode: "markers", x: [null], y: [null], name: "on the front", hoverinfo: "skip", marker: { size: 11, color: plot.colour("scale-3") } });
      }
      out.push(points(front, "on the front", { name: label("on the front"), marker, showlegend: many || !set.c,
        error_x: bars(study, front, set.x, plot.colour("bar")), error_y: bars(study, front, set.y, plot.colour("bar")) }));
      if (study.view.baselines.length) {
        const shown = study.view.baselines.filter((b) => set.x in b.values && set.y in b.values);
        out.push({ type: "scatter", mode: "markers", name: label("baselines"), x: shown.map((b) => b.values[set.x]), y: shown.map((b) => b.values[set.y]),
          customdata: shown.map((b) => [index, b.number]), hoverinfo: "text", hovertext: shown.map((b) => `<b>trial ${b.number}</b>, baseline`),
          marker: { size: 12, symbol: "star", color: plot.colour("ring") } });
      }
    });
    return out;
  }

  function draw2d(div, set, stands) {
    const first = page.studies[0];
    const columns = (name) => page.studies.map((study) => study.column(name));
    const axis = (name) => {
      const percent = first.metrics.get(name).unit === "%";
      const kind = percent ? {} : plot.kind(columns(name));
      const ends = page.studies.flatMap((study, i) => [...study.column(name), ...stands[i].front.flatMap((row) => study.spread(name, row))]);
      return plot.axis(first.metrics.get(name), { ...kind, ...plot.range(ends, kind.type) });
    };
    return plot.draw(div, traces2d(set, stands), { xaxis: axis(set.x), yaxis: axis(set.y), uirevision: `${set.x}|${set.y}`,
      margin: { l: 70, r: set.c ? 84 : 16, t: 40, b: 60 } }, "front");
  }

  function draw3d(div, set, stands) {
    const colours = plot.series();
    const data = page.studies.flatMap((study, index) => {
      const { dim, front } = stands[index];
      const names = [...new Set([...study.view.objectives, set.x, set.y, set.z])];
      const points = (rows, name, look) => ({ type: "scatter3d", mode: "markers", name, hoverinfo: "text",
        x: rows.map((r) => study.value(set.x, r)), y: rows.map((r) => study.value(set.y, r)), z: rows.map((r) => study.value(set.z, r)),
        customdata: rows.map((r) => [index, study.numbers[r]]), hovertext: rows.map((r) => hover(study, r, names, name)), marker: look });
      return [points(nas.pareto.sample(dim, DRAWN), "dominated", { size: 3.5, color: plot.colour("muted"), opacity: 0.6 }),
        points(front, "on the front", { size: 6, color: colours[index % colours.length] })];
    });
    const first = page.studies[0];
    const axis = (name) => {
      const kind = first.metrics.get(name).unit === "%" ? { tickformat: "~%" } : plot.kind(page.studies.map((s) => s.column(name)));
      return { title: { text: plot.plain(first.metrics.get(name).title), font: { size: 13 } }, gridcolor: plot.colour("grid"), color: plot.colour("muted"),
        tickfont: { size: 11 }, showbackground: true, backgroundcolor: plot.colour("page"), ...kind };
    };
    return plot.draw(div, data, { scene: { xaxis: axis(set.x), yaxis: axis(set.y), zaxis: axis(set.z), camera: { eye: { x: 1.35, y: 1.35, z: 0.75 }, center: { x: 0, y: 0, z: -0.12 } } },
      margin: { l: 0, r: 0, t: 30, b: 0 }, uirevision: "3d" }, "front-3d");
  }

  function frontTable(study, front, marks) {
    const metric = (name) => study.metrics.get(name);
    const names = [...new Set([...study.view.objectives, ...study.columns.keys()])].filter((name) => study.columns.has(name));
    const columns = [
      { title: "", note: "compare", value: () => "", node: (row) => el("input", { type: "checkbox", checked: marks.has(study.numbers[row]),
        "aria-label": `Compare trial ${study.numbers[row]}`, onchange: (event) => marks.set(study.numbers[row], event.target.checked) }) },
      { title: "Trial", number: true, value: (row) => study.numbers[row],
        node: (row) => el("a", { href: nas.link("trial", { study: study.name, n: study.numbers[row] }) }, String(study.numbers[row])) },
      ...names.map((name) => ({ title: metric(name).title, note: metric(name).spread, number: true, value: (row) => study.value(name, row),
        node: (row) => { const ends = nas.ends(metric(name), ...study.spread(name, row));
          return el("span", {}, nas.number(metric(name), study.value(name, row)), ends ? el("small", {}, ends) : ""); } })),
    ];
    const goal = study.objectives()[0];
    const sign = goal.direction === "min" ? 1 : -1;
    const order = [...front].sort((a, b) => sign * (study.value(goal.name, a) - study.value(goal.name, b)));
    return nas.table(columns, order, { name: `${study.name}-front`, label: "Candidates on the front", most: 50 });
  }

  function makeMarks(study) {
    const chosen = new Set(nas.place().query.getAll("t").map(Number));
    const button = el("button", { type: "button", onclick: () => nas.go("compare", { study, t: [...chosen].join(",") }) });
    const show = () => { button.disabled = chosen.size < 2 || chosen.size > 4; button.textContent = chosen.size > 4 ? "Compare at most four" : `Compare ${chosen.size || "two to four"} candidates`; };
    show();
    return { has: (n) => chosen.has(n), set: (n, on) => { if (on) chosen.add(n); else chosen.delete(n); show(); }, button };
  }

  function build(main) {
    const { query } = nas.place();
    const first = page.studies[0];
    const set = defaults(first, query);
    const own = first.view.bounds.map((b) => `${b.metric}${b.relation}${b.bound}`);
    const bounds = nas.readBounds(query.has("b") ? query.getAll("b") : own);
    const last = Math.max(...page.studies.map((s) => s.view.last), 0);
    let until = query.has("until") ? Math.min(Number(query.get("until")), last) : null;
    if (!Number.isFinite(until)) until = null;
    const marks = makeMarks(first.name);
    const figure = plot.figure("Front; the table below gives the same in numbers", 520);
    const count = el("p", { class: "count", id: "count", role: "status" });
    const tableHolder = el("div");
    const note = el("p", { class: "note" });
    let waiting = false;

    const boundWords = () => (bounds.size || own.length ? (bounds.size ? nas.writeBounds(bounds) : ["-"]) : []);
    const remember = () => nas.keep({ b: boundWords(), until: until === null ? [] : [until] });
    async function redraw() {
      waiting = false;
      const stands = page.studies.map((study) => standing(study, bounds, until));
      count.replaceChildren(...page.studies.flatMap((study, i) => [el("span", {}, page.studies.length > 1 ? `${study.name}: ` : "",
        el("b", { "data-count": "kept" }, stands[i].rows.length.toLocaleString("en-US")), ` of ${study.count.toLocaleString("en-US")} candidates within the bounds, `,
        el("b", { "data-count": "front" }, stands[i].front.length.toLocaleString("en-US")), " on the front")]));
      const thinned = stands.some((s) => s.dim.length > DRAWN) ? `Of the dominated candidates ${DRAWN.toLocaleString("en-US")} are drawn, evenly over the trials; all are counted. ` : "";
      const spread = page.studies.some((s) => s.count > 5000) ? "Spreads are shown for the study's own front. " : "";
      const where = [...new Set(page.studies.map((s) => s.view.device).filter(Boolean))].join("; ");
      const goals = first.objectives().filter((m) => m.spread).map((m) => `${m.label}: ${m.spread}`).join(", ");
      note.textContent = `${where ? `Measured on ${where}. ` : ""}${goals ? `Bars: ${goals}. ` : ""}${thinned}${spread}Click a point for its page.`;
      if (set.view === "parallel") {
        const names = [...new Set([...first.view.objectives, ...query.getAll("m")])].filter((name) => first.columns.has(name));
        nas.parallel(figure, { metrics: names.map((name) => first.metrics.get(name)), columnOf: (name) => first.column(name),
          dim: nas.pareto.sample(stands[0].dim, DRAWN), front: stands[0].front,
          outside: nas.pareto.sample(Array.from({ length: first.count }, (_, i) => i).filter((r) => !stands[0].kept.has(r)), OUTSIDE), bounds,
          brushed: (name, range) => { if (range === null || (range[0] === null && range[1] === null)) bounds.delete(name); else bounds.set(name, range); showFilters(); changed(); },
          opened: (row) => nas.go("trial", { study: first.name, n: first.numbers[row] }) });
      } else {
        await (set.view === "3d" ? draw3d : draw2d)(figure, set, stands);
        if (figure.on && !figure.dataset.bound) {
          figure.dataset.bound = "1";
          figure.on("plotly_click", (event) => {
            const data = event.points[0] && event.points[0].customdata;
            if (Array.isArray(data)) nas.go("trial", { study: page.studies[data[0]].name, n: data[1] });
          });
        }
      }
      tableHolder.replaceChildren(frontTable(first, stands[0].front, marks));
      figure.dataset.drawn = String(Number(figure.dataset.drawn || 0) + 1);
    }
    function changed() {
      remember();
      if (!waiting) { waiting = true; requestAnimationFrame(redraw); }
    }

    const filterHolder = el("div");
    function showFilters() {
      const names = [...new Set([...first.view.objectives, ...first.view.bounds.map((b) => b.metric), ...bounds.keys(), ...query.getAll("m")])].filter((name) => first.columns.has(name));
      filterHolder.replaceChildren(nas.filters(names.map((name) => first.metrics.get(name)), (name) => first.column(name), { bounds, changed }));
    }
    showFilters();
    const rest = [...first.metrics.values()].filter((m) => ![...first.view.objectives, ...query.getAll("m")].includes(m.name));
    const reset = el("button", { type: "button", class: "plain", onclick: () => { bounds.clear(); for (const [n, v] of nas.readBounds(own)) bounds.set(n, v); showFilters(); changed(); } },
      own.length ? "Back to the study's own" : "Clear all");
    const add = rest.length ? nas.select("Bound or compare also", [["", "choose a metric"], ...rest.map((m) => [m.name, m.label])], "", (name) => name && reload({ m: [...query.getAll("m"), name] })) : "";

    const reload = (changes) => { nas.keep(changes); nas.show(); };
    const metrics = [...first.metrics.values()].map((m) => [m.name, m.label]);
    const views = [["2d", "Two axes"], ["3d", "Three axes"], ["parallel", "Parallel coordinates"]];
    const controls = el("div", { class: "controls" },
      el("div", { class: "tabs", role: "group", "aria-label": "View" }, views.map(([key, text]) =>
        el("button", { type: "button", "aria-pressed": String(set.view === key), onclick: () => reload({ view: key }) }, text))),
      ...(set.view === "parallel" ? [] : [
        nas.select("Across", metrics, set.x, (v) => reload({ x: v })), nas.select("Up", metrics, set.y, (v) => reload({ y: v }))]),
      ...(set.view === "2d" && page.studies.length < 2 ? [nas.select("Colour", [["-", "none"], ...metrics], set.c || "-", (v) => reload({ c: v }))] : []),
      ...(set.view === "3d" ? [nas.select("Depth", metrics, set.z, (v) => reload({ z: v }))] : []),
      page.others.length && !nas.embedded ? nas.select("Beside", [["", page.studies.length > 1 ? "nothing more" : "another study"], ...page.others.map((n) => [n, `${page.studies.some((s) => s.name === n) ? "without" : "with"} ${n}`])], "",
        (name) => { const now = query.getAll("with"); reload({ with: now.includes(name) ? now.filter((n) => n !== name) : [...now, name] }); }) : "");

    const timeWords = () => (until === null ? `all ${last + 1} trials` : `up to trial ${until}`);
    const timeText = el("output", {}, timeWords());
    const time = el("input", { type: "range", id: "time", min: 0, max: last, value: until === null ? last : until, "aria-label": "Replay up to trial", "aria-valuetext": timeWords(),
      oninput: () => { until = Number(time.value) >= last ? null : Number(time.value); timeText.textContent = timeWords(); time.setAttribute("aria-valuetext", timeWords()); changed(); } });
    let timer = null;
    const play = el("button", { type: "button", onclick: () => {
      if (timer) { clearInterval(timer); timer = null; play.textContent = "Replay"; return; }
      if (until === null) time.value = 0;
      play.textContent = "Stop";
      timer = setInterval(() => {
        if (!play.isConnected) { clearInterval(timer); return; }
        time.value = Math.min(last, Number(time.value) + Math.max(1, Math.ceil(last / 100)));
        time.dispatchEvent(new Event("input"));
        if (until === null) play.click();
      }, 120);
    } }, "Replay");

    const empty = first.count === 0 ? el("p", { class: "note" }, "No candidate is complete yet; this page fills by itself.") : "";
    main.replaceChildren(
      el("h1", {}, "Pareto front ", el("small", {}, first.name)), count,
      el("div", { class: "split" },
        el("section", { class: "card" }, controls, empty, figure, el("div", { class: "replay" }, play, time, timeText), note),
        el("aside", { class: "card", "aria-label": "Constraints" }, el("h2", {}, "Constraints"), filterHolder, reset, add)),
      nas.card("Candidates on the front", el("p", { class: "after" }, marks.button), tableHolder));
    return redraw();
  }

  nas.pages.front = {
    title: "Front", study: true,
    async make(main, query) {
      const { studies } = await nas.get("studies");
      page.others = studies.map((s) => s.name).filter((name) => name !== query.get("study"));
      await load(query);
      await build(main);
    },
    // New trials enter the picture as it is set; what holds the focus is not replaced under it.
    async refresh(main, query) {
      await load(query);
      const held = document.activeElement && main.contains(document.activeElement) ? document.activeElement : null;
      const again = held && (held.id ? `#${held.id}` : held.dataset.metric ? `[data-metric="${CSS.escape(held.dataset.metric)}"]` : null);
      await build(main);
      if (again) main.querySelector(again)?.focus();
    },
  };
})();
