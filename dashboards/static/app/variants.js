"use strict";
// What was measured of each layer: every way of computing it, which are offered, and why not.
nas.variants = (() => {
  const { el } = nas;
  const FAMILIES = { implementation: "implementation", kind: "kind of convolution" };

  const us = (value) => `${Number(value.toPrecision(3))} µs`;
  const median = (row) => row.time?.median_us ?? NaN;

  // The rows of each distinct workload, with the layers that are one.
  function places(kept) {
    const found = new Map();
    for (const row of kept.table.rows) {
      if (!found.has(row.workload)) found.set(row.workload, { layers: [], rows: [] });
      found.get(row.workload).rows.push(row);
    }
    for (const [number, workload] of Object.entries(kept.layers)) {
      found.get(workload)?.layers.push(Number(number));
    }
    return [...found].map(([workload, place]) => ({ workload, ...place }));
  }

  // The row of a layer as it is in this network: of its variant, else dense.
  function chosen(kept, layer) {
    const own = kept.table.rows.filter(
      (row) => row.workload === kept.layers[layer.number] && row.family === "implementation",
    );
    return own.find((row) => row.name === (layer.variant || "dense") && row.time) || null;
  }

  function columns(slowest, layersOf) {
    const bar = (row) => {
      const width = `width:${((100 * median(row)) / slowest).toFixed(1)}%`;
      return row.time ? el("div", { class: "meter" }, el("span", { style: width })) : "";
    };
    const chip = (row) =>
      el("span", { class: row.offered ? "chip on" : "chip" }, row.offered ? "offered" : "left out");
    const spread = (row) => (row.time ? `${us(row.time.p10_us)} to ${us(row.time.p90_us)}` : "");
    return [
      ...(layersOf
        ? [
            { title: "Layers", value: (row) => layersOf(row).join(", ") },
            { title: "Workload", value: (row) => row.workload, wide: true },
          ]
        : []),
      { title: "Way", value: (row) => row.name, node: (row) => el("b", {}, row.name) },
      { title: "Compared as", value: (row) => FAMILIES[row.family] },
      {
        title: "Median (µs)",
        number: true,
        value: median,
        text: (row) => (row.time ? us(median(row)).replace(" µs", "") : ""),
      },
      ...(layersOf ? [] : [{ title: "", spoken: "Median as a bar", value: () => "", node: bar }]),
      { title: "p10 to p90", value: spread },
      { title: "Offered", value: (row) => (row.offered ? "yes" : "no"), node: chip },
      { title: "Why", value: (row) => row.reason, wide: true },
    ];
  }

  function place(view, { workload, layers, rows }) {
    const [first] = layers.map((number) => view.layers[number]).filter(Boolean);
    const base = rows.find((row) => row.time);
    const offered = rows.filter((row) => row.offered).map((row) => row.name);
    const name = `${view.study}-trial-${view.number}-ways-${layers.join("-")}`;
    const slowest = Math.max(...rows.map(median).filter(Number.isFinite));
    const summary = [
      el("b", {}, `Layer ${layers.join(", ")} `),
      el("code", {}, first ? first.op : workload),
      ` ${base ? `${base.name} ${us(median(base))}; ` : ""}offered: ${offered.join(", ")}`,
    ];
    const label = `Ways of computing layer ${layers.join(", ")}`;
    return nas.fold(
      name,
      el("span", {}, summary),
      el("p", { class: "note" }, el("code", {}, workload)),
      nas.table(columns(slowest), rows, { name, label }),
    );
  }

  function measured(view, kept) {
    const found = places(kept);
    const layersOf = (row) => found.find((item) => item.workload === row.workload).layers;
    const name = `${view.study}-trial-${view.number}-variants`;
    const label = "Ways of computing each layer";
    const options = { name, label, most: 200 };
    const { device, batch, dtype } = kept.table.conditions;
    return [
      nas.note(
        `Measured on ${device}, batch ${batch}, ${dtype}: each distinct workload, every way of ` +
          "computing it side by side. A way is offered to a search where it is faster than " +
          "dense, or than the standard convolution, beyond both spreads.",
      ),
      ...found.map((item) => place(view, item)),
      nas.fold(
        `${name}-all`,
        "All in one table",
        nas.table(columns(1, layersOf), kept.table.rows, options),
      ),
    ];
  }

  function card(view, requests) {
    const [kept] = view.variants;
    return nas.card(
      "Ways of computing each layer",
      ...(kept
        ? measured(view, kept)
        : [nas.note("The record holds no measurement of this network's layers.")]),
      requests,
    );
  }

  return { card, chosen };
})();
