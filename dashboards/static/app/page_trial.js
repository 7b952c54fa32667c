"use strict";
// One candidate with all that is known of it.
(() => {
  const { el } = nas;

  function layers(view) {
    const [kept] = view.variants;
    const time = (layer) =>
      kept ? (nas.variants.chosen(kept, layer)?.time.median_us ?? NaN) : NaN;
    const columns = [
      { title: "Layer", number: true, value: (l) => l.number },
      { title: "Operator", value: (l) => l.op, node: (l) => el("code", {}, l.op) },
      { title: "Reads", value: (l) => l.inputs.join(", ") },
      { title: "Shape", value: (l) => nas.shape(l.shape) },
      {
        title: "Parameters",
        number: true,
        value: (l) => l.params,
        text: (l) => (l.tie === null ? nas.count(l.params) : `shared with ${l.tie}`),
      },
      { title: "MACs", number: true, value: (l) => l.macs, text: (l) => nas.count(l.macs) },
      {
        title: "3DRF gain",
        note: "nats",
        number: true,
        value: (l) => l.gain ?? NaN,
        text: (l) => (l.gain === null ? "" : l.gain.toFixed(2)),
      },
      { title: "Variant", value: (l) => l.variant || (l.gain === null ? "" : "dense") },
      ...(kept
        ? [
            {
              title: "Alone",
              note: "median, µs",
              number: true,
              value: time,
              text: (l) => (Number.isFinite(time(l)) ? time(l).toPrecision(3) : ""),
            },
          ]
        : []),
      { title: "Name", value: (l) => l.scope },
    ];
    const name = `${view.study}-trial-${view.number}-layers`;
    return nas.table(columns, view.layers, { name, label: "Layers", most: 400 });
  }

  function figures(view) {
    const spread = (f) => nas.ends(f.metric, f.low, f.high);
    const columns = [
      { title: "Figure", value: (f) => f.metric.label, node: (f) => el("b", {}, f.metric.label) },
      {
        title: "Value",
        number: true,
        value: (f) => f.value,
        text: (f) => nas.shown(f.metric, f.value),
      },
      {
        title: "Spread",
        value: spread,
        node: (f) => {
          const ends = spread(f);
          const note = ends && f.metric.spread ? el("small", {}, f.metric.spread) : "";
          return el("span", {}, ends || "exact", note);
        },
      },
      {
        title: "How it came about",
        wide: true,
        value: (f) => [nas.evidence.words(f), ...nas.evidence.doubts(f)].join("; "),
        node: (f) =>
          el(
            "span",
            { class: "evidence" },
            nas.evidence.words(f),
            nas.evidence
              .doubts(f)
              .map((doubt) => el("span", { class: "doubt" }, `Not to be trusted: ${doubt}`)),
          ),
      },
    ];
    const name = `${view.study}-trial-${view.number}-figures`;
    return nas.table(columns, view.figures, {
      name,
      label: "Figures and where they were measured",
    });
  }

  function lineage(view) {
    const { origin, study } = view;
    const to = (n) => el("a", { href: nas.link("trial", { study, n }) }, `trial ${n}`);
    const isTrial = (value) => typeof value === "number";
    const by = [origin.by, origin.kind, origin.name]
      .filter((w) => typeof w === "string")
      .join(", ");
    const parts = [
      el(
        "p",
        {},
        "Proposed by ",
        el("b", {}, by || "unknown"),
        ...(isTrial(origin.parent) ? [" from ", to(origin.parent)] : []),
        ...(isTrial(origin.other) ? [" and ", to(origin.other)] : []),
        ".",
      ),
    ];
    if (view.changes.length) {
      const columns = [
        { title: "Decision", value: (c) => c.decision, node: (c) => el("code", {}, c.decision) },
        { title: "Parent", value: (c) => String(c.before ?? "not asked") },
        { title: "Here", value: (c) => String(c.after ?? "not asked") },
      ];
      const label = "What was decided otherwise than for the parent";
      parts.push(
        nas.table(columns, view.changes, { name: `${study}-trial-${view.number}-changes`, label }),
      );
    }
    if (view.children.length) {
      const links = view.children.flatMap((n, i) => [i ? ", " : "", to(n)]);
      parts.push(el("p", {}, "Parent of ", ...links, "."));
    }
    if (isTrial(origin.parent)) {
      const t = `${origin.parent},${view.number}`;
      parts.push(
        el(
          "p",
          {},
          el("a", { href: nas.link("compare", { study, t }) }, "Compare with its parent"),
        ),
      );
    }
    return nas.card("Where it comes from", ...parts);
  }

  function head(view) {
    const save = async () => {
      const content = await nas.get("architecture", { key: view.key });
      nas.save(`${view.key}.json`, "application/json", JSON.stringify(content, null, 1));
    };
    const copy = () =>
      navigator.clipboard.writeText(view.text).then(() => nas.say("The text is copied."));
    const json = el("button", { type: "button", onclick: save }, "Save as JSON");
    return [
      el("h1", {}, `Trial ${view.number} `, el("small", {}, view.key.slice(0, 8))),
      el(
        "p",
        { class: "count" },
        el("span", { class: `chip ${view.state}` }, view.state),
        view.baseline ? el("span", { class: "chip" }, "baseline") : "",
        view.stage ? el("span", { class: "chip" }, `at ${view.stage}`) : "",
        el(
          "span",
          {},
          `${view.layers.length} layers, `,
          el("b", {}, nas.compact(view.params)),
          " parameters, ",
          el("b", {}, nas.compact(view.macs)),
          " MACs",
        ),
      ),
      view.reason ? el("p", { class: "reason" }, view.reason) : "",
      el(
        "p",
        { class: "actions" },
        nas.embedded ? "" : json,
        el("button", { type: "button", onclick: copy }, "Copy the text"),
        el("a", { href: nas.link("front", { study: view.study }) }, "To the front"),
      ),
    ];
  }

  function measureRequests(view) {
    if (nas.embedded) return "";
    const list = nas.requests.list(view, "variants", nas.renew);
    const words = view.variants.length ? "Measure again" : "Measure every way at each layer";
    return el(
      "div",
      {},
      el(
        "p",
        { class: "actions" },
        el("button", { type: "button", onclick: () => list.ask() }, words),
        el("span", { class: "evidence" }, "takes the device for some minutes"),
      ),
      list.holder,
    );
  }

  nas.pages.trial = {
    title: "Architecture",
    study: true,
    hidden: true,
    load: (query) => nas.get("trial", { study: query.get("study"), number: query.get("n") }),
    async make(main, query, view) {
      const table = layers(view);
      const rowOf = (number) =>
        [...table.querySelectorAll("tbody tr")].find(
          (r) => Number(r.cells[0].textContent) === number,
        );
      const picked = (number) => {
        for (const other of main.querySelectorAll(".picked")) other.classList.remove("picked");
        main.querySelector(`.node[data-node="${number}"]`)?.classList.add("picked");
        rowOf(number)?.classList.add("picked");
        rowOf(number)?.scrollIntoView({ block: "nearest" });
      };
      table.addEventListener("click", (event) => {
        const row = event.target.closest("tbody tr");
        if (row) picked(Number(row.cells[0].textContent));
      });
      const drawing = nas.graph(view, picked);
      const evidence = nas.evidence.cards(view);
      main.replaceChildren(
        ...head(view),
        nas.card("Figures", figures(view)),
        el(
          "div",
          { class: "anatomy" },
          nas.card(
            "Graph",
            el(
              "div",
              {
                class: "scroll graph-holder",
                tabindex: "0",
                role: "region",
                "aria-label": "Graph of the network",
              },
              drawing,
            ),
            nas.picture.buttons(`${view.study}-trial-${view.number}-graph`, () => drawing),
          ),
          nas.card("Layers", table),
        ),
        el("div", { class: "pair" }, evidence.cards),
        nas.variants.card(view, measureRequests(view)),
        nas.exports.card(view),
        lineage(view),
        nas.card(
          "Text",
          nas.note("The network in one line; it parses back to the same network."),
          el("code", { class: "block" }, view.text),
        ),
      );
      const holder = main.querySelector(".graph-holder");
      holder.scrollLeft = (holder.scrollWidth - holder.clientWidth) / 2;
      await evidence.draw();
    },
  };
})();
