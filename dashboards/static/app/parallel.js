"use strict";
// Parallel coordinates: better is up on every axis. Dragging along an axis bounds its metric; a
// click on a line of a front opens the candidate.
// sets: [{ columnOf, dim, front, outside, colour, title(row), opened(row) }], one for a study.
nas.parallel = (() => {
  const { svg } = nas;
  const HEIGHT = 440;
  const PAD = { top: 18, bottom: 66, side: 58 };
  const LEAST = 150; // pixels between two axes
  const NEAR = 8; // pixels from a line that count as on it

  function scaleOf(metric, sets) {
    let [low, high] = [Infinity, -Infinity];
    for (const set of sets) {
      const column = set.columnOf(metric.name);
      for (const row of [...set.dim, ...set.front, ...set.outside]) {
        if (column[row] < low) low = column[row];
        if (column[row] > high) high = column[row];
      }
    }
    const log = low > 0 && high > 10 * low;
    const to = log ? Math.log10 : (value) => value;
    const [from, span] = [to(low), to(high) - to(low)];
    const up = metric.direction === "max";
    const room = HEIGHT - PAD.top - PAD.bottom;
    return {
      low,
      high,
      y(value) {
        const share = span ? (to(value) - from) / span : 0.5;
        return PAD.top + (up ? 1 - share : share) * room;
      },
      value(y) {
        const share = (y - PAD.top) / room;
        const place = from + (up ? 1 - share : share) * span;
        return log ? 10 ** place : place;
      },
    };
  }

  // The line of a candidate; it is open where a figure is missing.
  function path(columns, scales, x, row) {
    let text = "";
    let open = false;
    columns.forEach((column, i) => {
      const value = column[row];
      if (!Number.isFinite(value)) open = false;
      else {
        text += `${open ? "L" : "M"}${x(i).toFixed(1)} ${scales[i].y(value).toFixed(1)}`;
        open = true;
      }
    });
    return text;
  }

  function axis(metric, scale, at, { first, last }) {
    const [top, foot] = [PAD.top, HEIGHT - PAD.bottom];
    const parts = [svg("line", { x1: at, x2: at, y1: top, y2: foot, class: "axis-line" })];
    const middle = (top + foot) / 2;
    for (const y of scale.low < scale.high ? [top, middle, foot] : [middle]) {
      const text = svg("text", { x: at - 8, y: y + 4, "text-anchor": "end", class: "tick" });
      text.textContent = nas.number(metric, scale.value(y));
      parts.push(text);
    }
    const anchor = first ? "start" : last ? "end" : "middle";
    const x = first ? at - PAD.side + 4 : last ? at + PAD.side - 4 : at;
    const name = svg("text", { x, y: HEIGHT - 34, "text-anchor": anchor, class: "axis-name" });
    name.textContent = metric.title;
    const wish = svg("text", { x, y: HEIGHT - 16, "text-anchor": anchor, class: "tick" });
    wish.textContent = metric.wish;
    return [...parts, name, wish];
  }

  // What is dragged along an axis, and the mark of the bound that it has.
  function brush(metric, scale, at, bound, brushed) {
    const [top, foot] = [PAD.top, HEIGHT - PAD.bottom];
    const box = svg("rect", { x: at - 9, width: 18, y: top, height: 0, class: "brush" });
    const mark = (a, b) => {
      box.setAttribute("y", Math.min(a, b));
      box.setAttribute("height", Math.max(2, Math.abs(a - b)));
    };
    if (bound) mark(scale.y(bound[0] ?? scale.low), scale.y(bound[1] ?? scale.high));
    const grip = svg("rect", {
      x: at - 14,
      width: 28,
      y: top - 6,
      height: foot - top + 12,
      class: "grip",
      "data-axis": metric.name,
    });
    let from = null;
    const inside = (event) => {
      const y = event.clientY - grip.ownerSVGElement.getBoundingClientRect().top;
      return Math.min(foot, Math.max(top, y));
    };
    grip.addEventListener("pointerdown", (event) => {
      from = inside(event);
      grip.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    grip.addEventListener("pointermove", (event) => {
      if (from !== null) mark(from, inside(event));
    });
    grip.addEventListener("pointerup", (event) => {
      const to = inside(event);
      const moved = Math.abs(to - from) > 3;
      const [a, b] = [scale.value(from), scale.value(to)].sort((p, q) => p - q);
      from = null;
      const slack = (scale.high - scale.low) * 1e-9; // an end of the axis binds nothing
      const ends = [a <= scale.low + slack ? null : a, b >= scale.high - slack ? null : b];
      brushed(metric.name, moved ? ends : null);
    });
    return [box, grip];
  }

  // The candidate of a front whose line runs nearest to a point.
  function nearest(sets, columns, scales, x, [px, py]) {
    let best = { far: NEAR };
    const i = scales.findIndex((_, at) => at + 1 < scales.length && px >= x(at) && px <= x(at + 1));
    if (i < 0) return null;
    const share = (px - x(i)) / (x(i + 1) - x(i));
    sets.forEach((set, at) => {
      const [a, b] = [columns[at][i], columns[at][i + 1]];
      for (const row of set.front) {
        const y = scales[i].y(a[row]) * (1 - share) + scales[i + 1].y(b[row]) * share;
        if (Math.abs(y - py) < best.far) best = { far: Math.abs(y - py), set, at, row };
      }
    });
    return best.set ? best : null;
  }

  return (holder, { metrics, sets, bounds, brushed }) => {
    const width = Math.max(holder.clientWidth, 2 * PAD.side + (metrics.length - 1) * LEAST);
    const x = (i) => PAD.side + (i / Math.max(1, metrics.length - 1)) * (width - 2 * PAD.side);
    const scales = metrics.map((metric) => scaleOf(metric, sets));
    const columns = sets.map((set) => metrics.map((metric) => set.columnOf(metric.name)));
    const drawing = svg("svg", {
      width,
      height: HEIGHT,
      viewBox: `0 0 ${width} ${HEIGHT}`,
      role: "img",
      class: "parallel",
      "aria-label":
        `Parallel coordinates of ${metrics.map((metric) => metric.label).join(", ")}; ` +
        "the sliders set the same bounds",
    });
    const lines = (at, rows, attributes) =>
      drawing.append(
        svg("path", {
          d: rows.map((row) => path(columns[at], scales, x, row)).join(""),
          ...attributes,
        }),
      );
    sets.forEach((set, at) => lines(at, set.outside, { class: "line outside" }));
    sets.forEach((set, at) => lines(at, set.dim, { class: "line dim" }));
    sets.forEach((set, at) => lines(at, set.front, { class: "line front", stroke: set.colour }));
    const near = svg("path", { class: "line near" });
    const tip = svg("text", { class: "tip" });
    drawing.append(near);
    metrics.forEach((metric, i) => {
      const edge = { first: i === 0, last: i === metrics.length - 1 };
      drawing.append(
        ...axis(metric, scales[i], x(i), edge),
        ...brush(metric, scales[i], x(i), bounds.get(metric.name), brushed),
      );
    });
    drawing.append(tip);

    const found = (event) => {
      if (event.target.classList.contains("grip")) return null;
      const area = drawing.getBoundingClientRect();
      return nearest(sets, columns, scales, x, [
        event.clientX - area.left,
        event.clientY - area.top,
      ]);
    };
    drawing.addEventListener("pointermove", (event) => {
      const hit = found(event);
      drawing.style.cursor = hit ? "pointer" : "";
      near.setAttribute("d", hit ? path(columns[hit.at], scales, x, hit.row) : "");
      tip.textContent = hit ? hit.set.title(hit.row) : "";
      const area = drawing.getBoundingClientRect();
      tip.setAttribute("x", event.clientX - area.left + 12);
      tip.setAttribute("y", event.clientY - area.top - 8);
    });
    drawing.addEventListener("click", (event) => {
      const hit = found(event);
      if (hit) hit.set.opened(hit.row);
    });
    holder.replaceChildren(drawing);
    if (width > holder.clientWidth) holder.tabIndex = 0; // the keyboard can move it then
    return drawing;
  };
})();
