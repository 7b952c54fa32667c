"use strict";
// Sliders that bound metrics. A step of a slider is a value some candidate has.
nas.filters = (metrics, columnOf, { bounds, changed, remove }) => {
  const { el } = nas;
  const steps = 400;

  function row(metric) {
    const values = Float64Array.from(columnOf(metric.name)).filter(Number.isFinite).sort();
    const last = Math.min(steps, values.length - 1);
    if (last < 1) return null;
    const rising = metric.direction === "min"; // bounded from above
    const at = (step) => values[Math.round((step / last) * (values.length - 1))];
    const free = rising ? last : 0;
    const [low, high] = bounds.get(metric.name) || [null, null];
    const end = rising ? high : low;
    let start = free;
    if (end !== null) {
      start = rising ? 0 : last;
      if (rising) while (start < last && at(start + 1) <= end) start += 1;
      else while (start > 0 && at(start - 1) >= end) start -= 1;
    }
    const words = () => {
      const [from, to] = bounds.get(metric.name) || [null, null];
      if (from === null && to === null) return "any";
      if (from === null) return `\u2264 ${nas.shown(metric, to)}`;
      if (to === null) return `\u2265 ${nas.shown(metric, from)}`;
      return `${nas.number(metric, from)} to ${nas.shown(metric, to)}`;
    };
    const output = el("output", {}, words());
    const input = el("input", {
      type: "range", min: 0, max: last, step: 1, value: start, "data-metric": metric.name,
      "aria-label": `${metric.label} ${rising ? "at most" : "at least"}`, "aria-valuetext": words(),
      oninput: () => {
        const value = at(Number(input.value));
        const [from, to] = bounds.get(metric.name) || [null, null];
        const none = Number(input.value) === free;
        const next = rising ? [from, none ? null : value] : [none ? null : value, to];
        if (next[0] === null && next[1] === null) bounds.delete(metric.name);
        else bounds.set(metric.name, next);
        output.textContent = words();
        input.setAttribute("aria-valuetext", words());
        changed();
      },
    });
    return el("div", { class: "filter" }, el("div", { class: "filter-head" }, el("span", {}, metric.label), output,
      remove && remove(metric.name) ? el("button", { type: "button", class: "plain", "aria-label": `Remove ${metric.label}`,
        onclick: () => remove(metric.name)() }, "\u00d7") : null), input);
  }
  return el("div", { class: "filters" }, metrics.map(row));
};

// Bounds as they stand in an address: name<=number and name>=number.
nas.readBounds = (words) => {
  const bounds = new Map();
  for (const word of words) {
    const match = /^(.+?)(<=|>=)([-+0-9.eE]+)$/.exec(word);
    if (!match || !Number.isFinite(Number(match[3]))) continue;
    const [low, high] = bounds.get(match[1]) || [null, null];
    bounds.set(match[1], match[2] === "<=" ? [low, Number(match[3])] : [Number(match[3]), high]);
  }
  return bounds;
};
nas.writeBounds = (bounds) => [...bounds].flatMap(([name, [low, high]]) => [
  ...(low === null ? [] : [`${name}>=${low}`]), ...(high === null ? [] : [`${name}<=${high}`])]);
