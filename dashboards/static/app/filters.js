"use strict";
// Sliders that bound metrics. A step of a slider is a value that some candidate has.
nas.filters = (() => {
  const { el } = nas;
  const STEPS = 400;
  const SORTED = 8000; // values that stand for a column; to sort 100,000 takes 40 ms

  function words(metric, [low, high] = [null, null]) {
    if (low === null && high === null) return "any";
    if (low === null) return `≤ ${nas.shown(metric, high)}`;
    if (high === null) return `≥ ${nas.shown(metric, low)}`;
    return `${nas.number(metric, low)} to ${nas.shown(metric, high)}`;
  }

  // Values of a column in order, those that are missing left out; of very many, evenly taken ones
  // with the least and the largest.
  function inOrder(column) {
    const stride = Math.ceil(column.length / SORTED);
    const taken = [];
    let [least, most] = [Infinity, -Infinity];
    column.forEach((value, row) => {
      if (row % stride === 0) taken.push(value);
      if (value < least) least = value;
      if (value > most) most = value;
    });
    if (stride > 1 && least <= most) taken.push(least, most);
    return column.constructor.from(taken.filter((value) => !Number.isNaN(value))).sort();
  }

  // A slider of one metric, bounded on the side where it gets worse.
  function slider(metric, columnOf, bounds, changed, removed) {
    const fromAbove = metric.direction === "min";
    const output = el("output");
    const input = el("input", {
      type: "range",
      step: 1,
      "data-metric": metric.name,
      "aria-label": `${metric.label} ${fromAbove ? "at most" : "at least"}`,
    });
    let values = [];
    let last = 0;
    const at = (step) => values[Math.round((step / last) * (values.length - 1))];
    const free = () => (fromAbove ? last : 0);

    function place() {
      const [low, high] = bounds.get(metric.name) || [null, null];
      const end = fromAbove ? high : low;
      let step = free();
      if (end !== null && fromAbove) {
        step = 0;
        while (step < last && at(step + 1) <= end) step += 1;
      } else if (end !== null) {
        step = last;
        while (step > 0 && at(step - 1) >= end) step -= 1;
      }
      input.value = step;
    }
    function tell() {
      const text = words(metric, bounds.get(metric.name));
      output.textContent = text;
      input.setAttribute("aria-valuetext", text);
    }
    input.addEventListener("input", () => {
      const step = Number(input.value);
      const end = step === free() ? null : at(step);
      const [low, high] = bounds.get(metric.name) || [null, null];
      const next = fromAbove ? [low, end] : [end, high];
      if (next[0] === null && next[1] === null) bounds.delete(metric.name);
      else bounds.set(metric.name, next);
      tell();
      changed();
    });
    const remove = removed
      ? el(
          "button",
          {
            type: "button",
            class: "plain",
            "aria-label": `Leave out ${metric.label}`,
            onclick: removed,
          },
          "×",
        )
      : "";
    const row = el(
      "div",
      { class: "filter" },
      el(
        "div",
        { class: "filter-head" },
        el("span", {}, metric.label),
        el("span", {}, output, remove),
      ),
      input,
    );
    return {
      row,
      // Take in candidates that are new; what the reader holds stays where it is.
      renew() {
        values = inOrder(columnOf(metric.name));
        last = Math.min(STEPS, values.length - 1);
        row.hidden = last < 1;
        if (last < 1) return;
        input.max = last;
        if (document.activeElement !== input) place();
        tell();
      },
    };
  }

  // `removable` gives what is done to leave a metric out, or null.
  return (metrics, columnOf, { bounds, changed, removable }) => {
    const sliders = metrics.map((metric) =>
      slider(metric, columnOf, bounds, changed, removable(metric.name)),
    );
    for (const item of sliders) item.renew();
    return {
      rows: sliders.map((item) => item.row),
      renew: () => sliders.forEach((item) => item.renew()),
    };
  };
})();

// Bounds as they stand in an address: name<=number and name>=number.
nas.readBounds = (words) => {
  const bounds = new Map();
  for (const word of words) {
    const match = /^(.+?)(<=|>=)([-+0-9.eE]+)$/.exec(word);
    if (!match || !Number.isFinite(Number(match[3]))) continue;
    const [low, high] = bounds.get(match[1]) || [null, null];
    const end = Number(match[3]);
    bounds.set(match[1], match[2] === "<=" ? [low, end] : [end, high]);
  }
  return bounds;
};
nas.writeBounds = (bounds) =>
  [...bounds].flatMap(([name, [low, high]]) => [
    ...(low === null ? [] : [`${name}>=${low}`]),
    ...(high === null ? [] : [`${name}<=${high}`]),
  ]);
