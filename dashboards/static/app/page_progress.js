"use strict";
// How a study goes: hypervolume, what each stage dropped, where the time went, who works.
(() => {
  const { el, plot } = nas;

  // Time in the unit that suits how much there is.
  function inUnits(seconds) {
    const most = Math.max(0, ...seconds.filter(Number.isFinite));
    const [unit, size] = most < 180 ? ["s", 1] : most < 10800 ? ["min", 60] : ["h", 3600];
    return { unit, values: seconds.map((value) => (value === null ? null : value / size)) };
  }

  function axesOf(view) {
    const { volume } = view;
    const paid = inUnits(volume.spent);
    const wall = inUnits(volume.seconds);
    const device = view.gpu ? "GPU time" : "Processor time";
    return {
      trials: {
        label: "Trials",
        title: "Trials",
        values: volume.trials,
        ticks: plot.whole(volume.trials.at(-1)),
      },
      spent: {
        label: device,
        title: `${device} of evaluations (${paid.unit})`,
        values: paid.values,
      },
      seconds: {
        label: "Wall time",
        title: `Time since the study began (${wall.unit})`,
        values: wall.values,
      },
    };
  }

  function drawVolume(box, view, axis) {
    const { volume } = view;
    return plot.draw(
      box,
      [
        {
          type: "scatter",
          mode: volume.trials.length < 60 ? "lines+markers" : "lines",
          x: axis.values,
          y: volume.share,
          line: { shape: "hv", color: plot.colour("accent"), width: 2.2 },
          marker: { size: 5 },
          customdata: volume.front,
          hovertemplate:
            `%{y:.1%} of the box<br>${axis.title}: %{x:.4~s}<br>` +
            "%{customdata} on the front<extra></extra>",
        },
      ],
      {
        xaxis: plot.axis(null, {
          title: { text: axis.title },
          rangemode: "tozero",
          ...(axis.ticks || { tickformat: "~g" }),
        }),
        yaxis: plot.axis(null, {
          title: { text: "Hypervolume (% of the box)" },
          tickformat: ".0%",
          rangemode: "tozero",
        }),
        margin: { l: 66, r: 16, t: 12, b: 50 },
        showlegend: false,
        uirevision: axis.title,
      },
    );
  }

  function meter(share, label, more = {}) {
    const width = `width:${(100 * share).toFixed(2)}%`;
    return el(
      "div",
      { class: "meter", role: "img", "aria-label": label, ...more },
      el("span", { style: width }),
    );
  }

  function reasons(study, rows, name, label) {
    const trial = (n) => el("a", { href: nas.link("trial", { study, n }) }, String(n));
    const columns = [
      { title: "Reason", value: (r) => r.reason, wide: true },
      { title: "Trials", number: true, value: (r) => r.count, text: (r) => nas.count(r.count) },
      { title: "Newest", number: true, value: (r) => r.newest, node: (r) => trial(r.newest) },
    ];
    return nas.table(columns, rows, { name: `${study}-${name}`, label });
  }

  function funnel(study, view) {
    const rules = [...view.bounds, ...view.gates];
    const stages = view.stages.map((stage) => {
      const share = stage.dropped / Math.max(1, stage.reached);
      const counts = `${nas.count(stage.dropped)} of ${nas.count(stage.reached)} dropped`;
      const words = `${counts} (${(100 * share).toFixed(0)} %)`;
      const name = `dropped-${stage.stage}`;
      return el(
        "div",
        { class: "stage" },
        el("div", { class: "stage-head" }, el("b", {}, stage.stage), el("span", {}, words)),
        meter(1 - share, `${stage.stage}: ${words}`),
        nas.fold(
          `${study}-${name}`,
          "Reasons",
          reasons(study, stage.reasons, name, `Dropped at ${stage.stage}`),
        ),
      );
    });
    return nas.card(
      "Funnel",
      rules.length ? nas.note(rules.join("; ")) : "",
      ...(stages.length ? stages : [nas.note("No stage has dropped a candidate.")]),
    );
  }

  function times(study, view) {
    if (!view.seconds.length)
      return nas.card("Where the time went", nas.note("Nothing was evaluated yet."));
    const columns = [
      { title: "Evaluator", value: (r) => r.evaluator },
      {
        title: "Evaluations",
        number: true,
        value: (r) => r.count,
        text: (r) => nas.count(r.count),
      },
      {
        title: "In all",
        number: true,
        value: (r) => r.seconds,
        text: (r) => nas.duration(r.seconds),
      },
      {
        title: "Each",
        number: true,
        value: (r) => r.seconds / r.count,
        text: (r) => nas.duration(r.seconds / r.count),
      },
    ];
    return nas.card(
      "Where the time went",
      nas.table(columns, view.seconds, { name: `${study}-time`, label: "Time by evaluator" }),
    );
  }

  function workers(study, view) {
    if (!view.workers.length) return nas.card("Workers", nas.note("No worker has given a result."));
    // What the driver saw of its workers last is of no use when it is gone.
    const driven = view.driver && new Date(view.driver) > new Date();
    const state = (r) => (driven && r.state) || "";
    const at = (r) =>
      state(r) && r.trial !== null
        ? el("a", { href: nas.link("trial", { study, n: r.trial }) }, `trial ${r.trial}`)
        : "";
    const chip = (r) => (state(r) ? el("span", { class: "chip" }, state(r)) : "");
    const columns = [
      { title: "Worker", value: (r) => r.worker },
      {
        title: "Does",
        value: (r) => [r.slot, state(r)].filter(Boolean).join(", "),
        node: (r) => el("span", {}, r.slot ?? "", " ", chip(r), " ", at(r)),
      },
      {
        title: "Evaluations",
        number: true,
        value: (r) => r.count,
        text: (r) => nas.count(r.count),
      },
      {
        title: "Busy",
        number: true,
        value: (r) => r.seconds,
        text: (r) => nas.duration(r.seconds),
      },
      { title: "Last result", value: (r) => r.last, text: (r) => nas.moment(r.last) },
    ];
    const of = nas.note("Over the newest 2,000 trials.");
    return nas.card(
      "Workers",
      nas.table(columns, view.workers, { name: `${study}-workers`, label: "Workers" }),
      of,
    );
  }

  function events(study, view) {
    if (!view.events.length) return nas.card("What happened", nas.note("Nothing yet."));
    const value = (item) => {
      if (Array.isArray(item)) return item.map(value).join(" and ");
      if (typeof item === "boolean") return item ? "yes" : "no";
      return item !== null && typeof item === "object" ? JSON.stringify(item) : String(item ?? "");
    };
    const words = ({ data }) =>
      data.message ||
      Object.entries(data)
        .map(([name, item]) => [name.replace(/_/g, " "), value(item)])
        .filter(([, text]) => text)
        .map((pair) => pair.join(" "))
        .join(", ");
    const columns = [
      { title: "When", value: (e) => e.time, text: (e) => nas.moment(e.time) },
      { title: "What", value: (e) => e.kind },
      { title: "More", value: words, wide: true },
    ];
    return nas.card(
      "What happened",
      nas.table(columns, view.events, { name: `${study}-events`, label: "Events", most: 20 }),
    );
  }

  function stopping(view) {
    if (!view.stopping) return "";
    return nas.card("Early stopping", el("p", {}, view.stopping));
  }

  function head(study, view) {
    const states = ["complete", "running", "dropped", "repeat", "failed"].filter(
      (s) => view.states[s],
    );
    const done = Math.min(1, (view.states.complete || 0) / view.asked);
    return [
      el("h1", {}, "Progress ", el("small", {}, study)),
      el(
        "p",
        { class: "count" },
        ...states.map((s) =>
          el("span", { class: `chip ${s}` }, `${nas.count(view.states[s])} ${s}`),
        ),
        el("span", {}, `${nas.count(view.asked)} asked for`),
      ),
      meter(done, "Complete of those asked for", {
        class: "meter big",
        role: "progressbar",
        "aria-valuenow": Math.round(100 * done),
        "aria-valuemin": 0,
        "aria-valuemax": 100,
      }),
    ];
  }

  nas.pages.progress = {
    title: "Progress",
    study: true,
    load: (query) => nas.get("progress", { study: query.get("study") }),
    async make(main, query, view) {
      const study = query.get("study");
      const axes = axesOf(view);
      const by = query.get("by") in axes ? query.get("by") : "trials";
      const chart = plot.figure(
        `${study}-hypervolume`,
        "Hypervolume; the note says what it is",
        320,
      );
      const options = Object.entries(axes).map(([name, axis]) => [name, axis.label]);
      const choose = nas.select("Against", options, by, (name) => {
        nas.keep({ by: name });
        nas.show();
      });
      const some = view.volume.trials.length > 0;
      main.replaceChildren(
        ...head(study, view),
        nas.card(
          "Hypervolume",
          ...(some
            ? [el("div", { class: "controls" }, choose), chart]
            : [nas.note("No candidate is complete yet.")]),
          nas.note(
            "Share of the box between the best values found and a reference a tenth of the " +
              "front's range beyond its worst values, which the front so far dominates. Both are " +
              "those of the study as it stands now, so the curve is drawn anew as the front grows.",
          ),
        ),
        stopping(view),
        el("div", { class: "pair" }, funnel(study, view), times(study, view)),
        el(
          "div",
          { class: "pair" },
          nas.card(
            "Failures",
            view.failures.length
              ? reasons(study, view.failures, "failures", "Failures")
              : nas.note("No candidate has failed."),
          ),
          workers(study, view),
        ),
        events(study, view),
      );
      if (some) await drawVolume(chart, view, axes[by]);
    },
  };
})();
