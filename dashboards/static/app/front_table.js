"use strict";
// The candidates on the front as a table, and which of them are marked to be compared.
nas.frontTable = (() => {
  const { el } = nas;
  const SHOWN = [
    ...nas.Study.QUALITIES.flatMap((name) => [name, `test_${name}`]),
    ...["latency_ms", "params", "macs"],
  ];
  const MOST = 4; // candidates that can be compared

  // Metrics that the address names.
  const picked = (query) => {
    const axes = ["x", "y", "z", "c"].map((name) => query.get(name));
    return [...new Set([...axes, ...query.getAll("m")])].filter(Boolean);
  };

  // What the table shows: what is asked for and picked, or all that is known.
  function metrics(study, query, all) {
    const known = [...study.columns.keys()].filter((name) => name !== nas.Study.TRIAL.name);
    const first = [...study.asked(), ...picked(query), ...SHOWN];
    return [...new Set(all ? [...first, ...known] : first)].filter((name) => known.includes(name));
  }

  function marks(study, query) {
    const chosen = new Set(query.getAll("t").map(Number));
    const compare = () => nas.go("compare", { study, t: [...chosen].join(",") });
    const button = el("button", { type: "button", onclick: compare });
    function show() {
      button.disabled = chosen.size < 2 || chosen.size > MOST;
      const count = chosen.size || "two to four";
      button.textContent =
        chosen.size > MOST ? "Compare at most four" : `Compare ${count} candidates`;
    }
    show();
    return {
      has: (number) => chosen.has(number),
      set(number, on) {
        if (on) chosen.add(number);
        else chosen.delete(number);
        nas.keep({ t: [...chosen] });
        show();
      },
      button,
    };
  }

  function figure(study, name) {
    const metric = study.metrics.get(name);
    const column = study.column(name);
    return {
      title: metric.title,
      note: metric.spread,
      number: true,
      value: (row) => column[row],
      node: (row) => {
        const ends = nas.ends(metric, ...study.spread(name, row));
        return el("span", {}, nas.number(metric, column[row]), ends ? el("small", {}, ends) : "");
      },
    };
  }

  function make(study, front, marked, names) {
    const number = (row) => study.numbers[row];
    const compare = (row) =>
      el("input", {
        type: "checkbox",
        checked: marked.has(number(row)),
        "aria-label": `Compare trial ${number(row)}`,
        onchange: (event) => marked.set(number(row), event.target.checked),
      });
    const link = (row) =>
      el("a", { href: nas.link("trial", { study: study.name, n: number(row) }) }, `${number(row)}`);
    const known = names.filter((name) =>
      front.some((row) => Number.isFinite(study.column(name)[row])),
    );
    const columns = [
      { title: "", note: "compare", value: () => "", node: compare },
      { title: "Trial", number: true, value: number, node: link },
      ...known.map((name) => figure(study, name)),
      ...(front.some((row) => study.variants(row))
        ? [{ title: "Variants", value: (row) => study.variants(row), wraps: true }]
        : []),
    ];
    const [goal] = study.objectives();
    const sign = goal.direction === "min" ? 1 : -1;
    const column = study.column(goal.name);
    const order = [...front].sort((a, b) => sign * (column[a] - column[b]) || a - b);
    const label = "Candidates on the front";
    return nas.table(columns, order, { name: `${study.name}-front`, label, most: 50 });
  }

  return { picked, metrics, marks, make };
})();
