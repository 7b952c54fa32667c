"use strict";
// Two to four candidates side by side: figures, and layers aligned with what differs marked.
(() => {
  const { el } = nas;
  const MOST = 4;
  const SAME = "all spreads overlap";

  const figureOf = (trial, name) => trial.figures.find((f) => f.metric.name === name);
  const title = (trial) => `Trial ${trial.number}`;
  const link = (trial) =>
    el("a", { href: nas.link("trial", { study: trial.study, n: trial.number }) }, title(trial));

  // Whether the spreads tell candidates apart; exact figures always do.
  function overlap(trials, metric) {
    const known = trials.map((trial) => figureOf(trial, metric.name)).filter(Boolean);
    if (known.length < 2 || known.some((f) => f.low === null || f.high === null)) return "";
    const meet = Math.max(...known.map((f) => f.low)) <= Math.min(...known.map((f) => f.high));
    return meet ? SAME : "not all spreads overlap";
  }

  function figures(study, trials) {
    const all = trials.flatMap((trial) => trial.figures.map((f) => [f.metric.name, f.metric]));
    const metrics = [...new Map(all).values()];
    const best = (metric) => {
      const values = trials.map((t) => figureOf(t, metric.name)?.value).filter(Number.isFinite);
      return metric.direction === "min" ? Math.min(...values) : Math.max(...values);
    };
    const cell = (trial) => (metric) => {
      const found = figureOf(trial, metric.name);
      if (!found) return "";
      const text = nas.number(metric, found.value);
      const ends = nas.ends(metric, found.low, found.high);
      const ahead = found.value === best(metric) && overlap(trials, metric) !== SAME;
      const top = ahead ? el("b", { title: "the best here" }, text) : text;
      return el("span", {}, top, ends ? el("small", {}, ends) : "");
    };
    const columns = [
      {
        title: "Figure",
        value: (m) => m.title,
        node: (m) =>
          el(
            "span",
            {},
            m.title,
            el("small", {}, [m.wish, overlap(trials, m)].filter(Boolean).join("; ")),
          ),
      },
      ...trials.map((trial) => ({
        title: title(trial),
        number: true,
        value: (metric) => figureOf(trial, metric.name)?.value ?? NaN,
        node: cell(trial),
      })),
    ];
    const name = `${study}-compare-${trials.map((t) => t.number).join("-")}`;
    return nas.table(columns, metrics, { name, label: "Figures side by side" });
  }

  // The words of an operator, those marked that not all networks have here.
  function operator(text, texts) {
    const words = text.split(" ");
    const common = (word) => texts.every((other) => other.split(" ").includes(word));
    const parts = words.map((word) =>
      texts.length < 2 || common(word) ? word : el("mark", {}, word),
    );
    return el(
      "code",
      {},
      parts.flatMap((part, i) => (i ? [" ", part] : [part])),
    );
  }

  function aligned(study, trials) {
    const rows = nas.align(trials.map((trial) => trial.layers.map((layer) => layer.op)));
    const layersOf = (row) =>
      row.map((place, i) => (place === null ? null : trials[i].layers[place]));
    const key = (layer) => (layer ? `${layer.op} ${layer.shape} ${layer.variant}` : "");
    const same = (row) => new Set(layersOf(row).map(key)).size === 1;
    const cell = (i) => (row) => {
      const layer = layersOf(row)[i];
      if (!layer) return el("span", { class: "gap" }, "—");
      const texts = layersOf(row)
        .filter(Boolean)
        .map((other) => other.op);
      const about = [
        nas.shape(layer.shape),
        layer.params ? `${nas.count(layer.params)} parameters` : "",
        layer.macs ? `${nas.compact(layer.macs)} MACs` : "",
        layer.variant,
      ];
      return el(
        "span",
        {},
        operator(layer.op, texts),
        el("small", {}, about.filter(Boolean).join(", ")),
      );
    };
    const columns = [
      {
        title: "",
        spoken: "Differs",
        value: () => "",
        node: (row) =>
          same(row)
            ? ""
            : el("span", { class: "mark" }, "≠", el("span", { class: "hidden" }, " differs")),
      },
      ...trials.map((trial, i) => ({
        title: title(trial),
        wide: true,
        value: (row) => layersOf(row)[i]?.op ?? "",
        node: cell(i),
      })),
    ];
    const differ = rows.filter((row) => !same(row)).length;
    const name = `${study}-aligned-${trials.map((t) => t.number).join("-")}`;
    const mark = (row) => (same(row) ? "" : "differs");
    return [
      nas.note(
        `${differ} of ${rows.length} rows differ; they are marked with ≠. A dash: no such layer.`,
      ),
      nas.table(columns, rows, { name, label: "Layers aligned", most: 400, mark }),
    ];
  }

  function ask(study, text) {
    const field = el("input", {
      type: "text",
      value: text,
      placeholder: "3, 17, 21",
      "aria-label": "Trials to compare, two to four numbers",
    });
    const submit = (event) => {
      event.preventDefault();
      const numbers = field.value.match(/\d+/g) || [];
      nas.go("compare", { study, t: numbers.join(",") });
    };
    return el(
      "form",
      { class: "controls", onsubmit: submit },
      el("label", { class: "field" }, el("span", {}, "Trials"), field),
      el("button", { type: "submit" }, "Compare"),
    );
  }

  nas.pages.compare = {
    title: "Compare",
    study: true,
    async load(query) {
      const numbers = [...new Set((query.get("t") || "").match(/\d+/g) || [])];
      if (!numbers.length) return { trials: [] };
      if (numbers.length < 2 || numbers.length > MOST) {
        return {
          trials: [],
          problem: `Compare two to four different trials, got ${numbers.length}.`,
        };
      }
      const study = query.get("study");
      try {
        const trials = await Promise.all(
          numbers.map((number) => nas.get("trial", { study, number })),
        );
        return { trials };
      } catch (problem) {
        return { trials: [], problem: problem.message };
      }
    },
    make(main, query, { trials, problem }) {
      const study = query.get("study");
      const head = [
        el("h1", {}, "Compare ", el("small", {}, study)),
        ask(study, query.get("t") || ""),
      ];
      if (problem) {
        main.replaceChildren(...head, nas.error(new Error(problem)));
        return;
      }
      if (!trials.length) {
        const words =
          "Give the numbers of two to four trials, or mark candidates in the table of the front.";
        main.replaceChildren(...head, nas.note(words));
        return;
      }
      const links = el("p", { class: "count" }, trials.map(link));
      main.replaceChildren(
        ...head,
        links,
        nas.card("Figures", figures(study, trials)),
        nas.card("Layers", ...aligned(study, trials)),
      );
    },
  };
})();
