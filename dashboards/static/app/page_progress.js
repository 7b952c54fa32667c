"use strict";
(() => {
  const { el, plot } = nas;
  const AXES = { trials: "Trials", spent: "Evaluation time (min)", minutes: "Time since the study began (min)" };

  nas.pages.progress = {
    title: "Progress", study: true,
    async make(main, query) {
      const study = query.get("study");
      const view = await nas.get("progress", { study });
      const by = query.get("by") in AXES ? query.get("by") : "trials";
      const chart = plot.figure("Hypervolume; the note says what it is", 320);
      const states = ["complete", "running", "dropped", "repeat", "failed"].filter((s) => view.states[s]);
      const done = Math.min(1, (view.states.complete || 0) / view.asked);
      const trial = (n) => el("a", { href: nas.link("trial", { study, n }) }, String(n));
      const reasons = (rows, name) => nas.table([{ title: "Reason", value: (r) => r.reason, wide: true }, { title: "Trials", number: true, value: (r) => r.count },
        { title: "Newest", number: true, value: (r) => r.newest, node: (r) => trial(r.newest) }], rows, { name: `${study}-${name}`, label: name });
      const share = (item) => item.dropped / Math.max(1, item.reached);
      const stages = view.stages.map((item) => el("div", { class: "stage" }, el("div", { class: "stage-head" }, el("b", {}, item.stage), el("span", {}, `${item.dropped.toLocaleString("en-US")} of ${item.reached.toLocaleString("en-US")} dropped (${(100 * share(item)).toFixed(0)} %)`)),
        el("div", { class: "meter", role: "img", "aria-label": `${(100 * share(item)).toFixed(0)} % dropped` }, el("span", { style: `width:${100 * (1 - share(item))}%` })),
        el("details", {}, el("summary", {}, "Reasons"), reasons(item.reasons, `dropped-${item.stage}`))));
      const words = (event) => (event.data.message ? event.data.message : Object.entries(event.data).map(([k, v]) => `${k} ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", "));
      main.replaceChildren(el("h1", {}, "Progress ", el("small", {}, study)),
        el("p", { class: "count" }, ...states.map((s) => el("span", { class: `chip ${s}` }, `${view.states[s].toLocaleString("en-US")} ${s}`)), el("span", {}, `${view.asked.toLocaleString("en-US")} asked for`)),
        el("div", { class: "meter big", role: "progressbar", "aria-valuenow": Math.round(100 * done), "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "Complete of those asked for" }, el("span", { style: `width:${100 * done}%` })),
        nas.card("Hypervolume", el("div", { class: "controls" }, nas.select("Against", Object.entries(AXES), by, (v) => { nas.keep({ by: v }); nas.show(); })), chart,
          el("p", { class: "note" }, "Share of the box between the best values found and a reference a tenth of the front's range beyond its worst values, which the front so far dominates. Both are those of the study as it stands now, so the curve is drawn anew as the front grows.")),
        el("div", { class: "pair" },
          nas.card("Funnel", ...(view.gates.length || view.bounds.length ? [el("p", { class: "note" }, [...view.bounds, ...view.gates].join("; "))] : []), ...(stages.length ? stages : [el("p", { class: "note" }, "No stage has dropped a candidate.")])),
          nas.card("Where the time went", view.seconds.length ? nas.table([{ title: "Evaluator", value: (r) => r.evaluator }, { title: "Evaluations", number: true, value: (r) => r.count, text: (r) => r.count.toLocaleString("en-US") },
            { title: "In all", number: true, value: (r) => r.seconds, text: (r) => nas.duration(r.seconds) }, { title: "Each", number: true, value: (r) => r.seconds / r.count, text: (r) => nas.duration(r.seconds / r.count) }], view.seconds, { name: `${study}-time`, label: "Time by evaluator" }) : el("p", { class: "note" }, "Nothing was evaluated yet."))),
        el("div", { class: "pair" },
          nas.card("Failures", view.failures.length ? reasons(view.failures, "failures") : el("p", { class: "note" }, "No candidate has failed.")),
          nas.card("Workers", view.workers.length ? nas.table([{ title: "Worker", value: (r) => r.worker }, { title: "Evaluations", number: true, value: (r) => r.count }, { title: "Busy", number: true, value: (r) => r.seconds, text: (r) => nas.duration(r.seconds) },
            { title: "Last result", value: (r) => r.last, text: (r) => nas.moment(r.last) }], view.workers, { name: `${study}-workers`, label: "Workers" }) : el("p", { class: "note" }, "No worker has given a result."))),
        nas.card("What happened", view.events.length ? nas.table([{ title: "When", value: (e) => e.time, text: (e) => nas.moment(e.time) }, { title: "What", value: (e) => e.kind }, { title: "More", value: words, wide: true }], view.events, { name: `${study}-events`, label: "Events", most: 20 }) : el("p", { class: "note" }, "Nothing yet.")));
      const { volume } = view;
      await plot.draw(chart, [{ type: "scatter", mode: volume.trials.length < 60 ? "lines+markers" : "lines", x: volume[by], y: volume.share, line: { shape: "hv", color: plot.colour("accent"), width: 2.2 }, marker: { size: 5 },
        customdata: volume.front, hovertemplate: `%{y:.1%} of the box<br>${AXES[by]}: %{x:.4~s}<br>%{customdata} on the front<extra></extra>` }],
      { xaxis: plot.axis(null, { title: { text: AXES[by] }, rangemode: "tozero" }), yaxis: plot.axis(null, { title: { text: "Hypervolume" }, tickformat: ".0%", rangemode: "tozero" }), margin: { l: 62, r: 16, t: 12, b: 50 }, showlegend: false }, `${study}-hypervolume`);
    },
  };
})();
