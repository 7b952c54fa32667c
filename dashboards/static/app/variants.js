"use strict";
// What was measured of each layer: every way of computing it, which are offered, and why not.
nas.variants = (() => {
  const { el } = nas;

  function rows(view, kept) {
    const layersOf = new Map();
    for (const [number, workload] of Object.entries(kept.layers)) {
      layersOf.set(workload, [...(layersOf.get(workload) || []), Number(number)]);
    }
    return kept.table.rows.map((row) => ({ ...row, layers: layersOf.get(row.workload) || [] }));
  }

  // The time of a layer as it is in this network: of its kind, or of the chosen variant.
  function chosen(view, kept, layer) {
    const workload = kept.layers[layer.number];
    const found = kept.table.rows.filter(
      (row) => row.workload === workload && row.family === "implementation",
    );
    const name = layer.variant || "dense";
    return (
      found.find((row) => row.name === name && row.time) || found.find((row) => row.time) || null
    );
  }

  function table(view, kept) {
    const columns = [
      { title: "Layers", value: (r) => r.layers.join(", ") },
      {
        title: "Workload",
        wide: true,
        value: (r) => r.workload,
        node: (r) => el("code", {}, r.workload),
      },
      {
        title: "Compared as",
        value: (r) => (r.family === "kind" ? "kind of convolution" : "implementation"),
      },
      { title: "Way", value: (r) => r.name, node: (r) => el("b", {}, r.name) },
      {
        title: "Median (µs)",
        number: true,
        value: (r) => r.time?.median_us ?? NaN,
        text: (r) => (r.time ? r.time.median_us.toPrecision(4) : ""),
      },
      {
        title: "p10 to p90 (µs)",
        number: true,
        value: (r) =>
          r.time ? `${r.time.p10_us.toPrecision(4)} to ${r.time.p90_us.toPrecision(4)}` : "",
      },
      {
        title: "Offered",
        value: (r) => (r.offered ? "yes" : "no"),
        node: (r) =>
          el("span", { class: r.offered ? "chip on" : "chip" }, r.offered ? "offered" : "left out"),
      },
      { title: "Why", wide: true, value: (r) => r.reason },
    ];
    return nas.table(columns, rows(view, kept), {
      name: `${view.study}-trial-${view.number}-variants`,
      label: "Ways of computing each layer",
      most: 60,
    });
  }

  function card(view, requests) {
    const [kept] = view.variants;
    const about = kept
      ? nas.note(
          `Measured on ${kept.table.conditions.device}: each distinct workload, every way of ` +
            "computing it side by side. A way is offered to a search where it is faster than " +
            "dense, or than the standard convolution, beyond both spreads.",
        )
      : nas.note("The record holds no measurement of this network's layers.");
    return nas.card("Ways of computing each layer", about, kept ? table(view, kept) : "", requests);
  }

  return { card, chosen };
})();
